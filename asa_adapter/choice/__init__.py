"""Which setting is chosen from what was measured, and whether it is a gain: arithmetic on arrays, without a model."""
