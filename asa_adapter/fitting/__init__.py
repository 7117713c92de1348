"""From labelled states of one layer to directions, router, probes and readiness, and to the pushes along them.

It chooses no setting.
"""
