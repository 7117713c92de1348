"""What fitting, measuring, explaining and attaching ask of a model that another engine than transformers runs.

It knows no engine: a model is one by what it can do.
"""
