"""Why does this model call, or not? One prompt looked at closely, and what must hold before steering can help.

It only looks: the model is left as it was.
"""
