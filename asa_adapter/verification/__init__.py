"""Does an adapter do here what it did where it was fitted? A dozen prompts, asked of any engine and compared.

Nothing of the user's data is in them unless the user names it.
"""
