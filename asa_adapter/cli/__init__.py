"""The command `asa-adapter`: from words on a command line to a result on the terminal, in words or as JSON.

Nothing heavy is imported before a command runs, so that help and usage errors appear at once. The work itself is done
by the rest of the package; this part reads the options, calls it and prints the result.
"""
