"""What is run on the model while an adapter is fitted: states, first tokens and answers, kept as stages on disk."""
