"""A stranger's chat template: a program that renders in a process of its own, within bounds of time and memory."""
