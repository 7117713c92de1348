"""A report in words and tables: its weak spots, and whether steering is worth it beside simpler rules.

The texts are Markdown, for model cards and terminals alike; whatever in them comes from a stranger is escaped.
"""
