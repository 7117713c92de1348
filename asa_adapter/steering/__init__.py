"""What decides and steers: directions, router and probes, the controller, and the hook that applies it.

`hook` is the one module of the package that leaves something on a model, until its handle is removed.
"""
