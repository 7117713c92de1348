"""The parts that decide and steer: directions, router and probes, the controller, and the hook that applies it.

Only `hook` leaves changes on a model after its functions return; removing the handle undoes them.
"""
