"""Answers of a model of transformers: prompts run once, batches that rows leave, first tokens forced."""
