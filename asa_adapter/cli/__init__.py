"""The command `asa-adapter`: from words on a command line to a result on the terminal, in words or as JSON.

Nothing heavy is imported before a command runs, so that help and wrong usage answer at once. What the commands do is
done elsewhere: here it is asked for and shown.
"""
