"""An OpenAI-compatible server for a steered model: from HTTP to an engine and back, one request after the other.

It knows engines through `engine.Engine` alone, and calls no tool: a call is the client's to make.
"""
