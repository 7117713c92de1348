"""The entry point that vLLM's plug-in loader imports; in the wheel it stands beside the package, `asa_adapter_vllm`.

vLLM only logs a plug-in that fails when it is imported, and would serve the bare model then; one that fails when it is
called stops it. So nothing is imported here before the call, not even the package that this belongs to.
"""


def register() -> None:
    """Steers the models that this process serves, where ASA_ADAPTER is set; else leaves vLLM as it is.

    Raises:
        Exception: whatever is wrong with the adapter or with this vLLM; the engine does not start then.
    """
    import os

    if os.environ.get("ASA_ADAPTER"):
        from asa_adapter.vllm.plugin import install

        install()
