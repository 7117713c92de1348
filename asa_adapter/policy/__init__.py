"""From residual states to a decision for each row, and to the step that follows from it, as tensors.

It knows no model, no engine and no token: whoever runs the model gathers the states and applies the steps.
"""
