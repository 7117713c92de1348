"""What steers a model while it generates: the controller, the plan of a call, and the hook that applies it.

Only `hook` leaves changes on a model after its functions return; removing the handle undoes them.
"""
