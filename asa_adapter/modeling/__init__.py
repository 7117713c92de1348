"""Reads and runs a model: its decoder blocks, one forward pass, shared prompt prefixes, several processes.

Every hook that is registered here is removed before the function returns or the `with` block ends.
"""
