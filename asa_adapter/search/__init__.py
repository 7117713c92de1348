"""From rows to one setting: what the model does is measured, each layer is fitted, and a setting is chosen or none is.

TRAIN ranks and VALID decides; nothing here ever sees TEST before the choice is made.
"""
