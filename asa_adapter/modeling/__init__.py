"""Reads and runs a model: its decoder blocks, one forward pass, shared beginnings of prompts, several processes.

Whatever is registered on a model here is gone again when the function returns.
"""
