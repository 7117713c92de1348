"""Steered models in an unmodified vLLM: a general plug-in switched on by `ASA_ADAPTER=<folder or Hub id>`.

`entry` is what vLLM calls in each of its processes, and it calls `plugin`. Nothing else of this folder is imported
before that, and nothing of vLLM is imported by the rest of the package.
"""
