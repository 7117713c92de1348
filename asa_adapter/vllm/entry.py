"""The entry point that vLLM's plug-in loader imports; in the wheel it is a module of its own, `asa_adapter_vllm`.

vLLM only logs a plug-in whose import fails, and then serves the bare model; a plug-in whose call fails stops it. So
nothing is imported here before the call, not even the package that this belongs to.
"""


def register() -> None:
    """Steers the models that this process serves, if ASA_ADAPTER is set; else leaves vLLM unchanged.

    Raises:
        Exception: whatever is wrong with the adapter or with this vLLM; the engine does not start then.
    """
    import os

    if os.environ.get("ASA_ADAPTER"):
        from asa_adapter.vllm.plugin import install

        install()
