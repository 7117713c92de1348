"""What an adapter is and what a training tries, as data that checks itself.

It imports no numpy, no torch and no client of the Hub: `asa-adapter --help` shows its defaults.
"""
