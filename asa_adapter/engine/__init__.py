"""What fitting, measuring, explaining and attaching ask of a model that another engine than transformers runs.

It knows no engine: a model is one by what it can do. Prompts as token ids, in batches and by what they begin with, are
here too.
"""
