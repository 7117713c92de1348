"""How a tool call is written down: as JSON, as Python or in tags, read and written; no model's format is known here.

A reader returns the calls that it could read, and never raises.
"""
