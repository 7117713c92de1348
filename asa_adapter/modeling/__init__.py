"""Reads and runs a model: its decoder blocks, one forward pass, shared prompt prefixes, several processes.

Prompts share a prefix, or a batch, only where a sample has the results of each prompt run alone (see `prefix_cache`).
Every hook that is registered here is removed before the function returns or the `with` block ends.
"""
