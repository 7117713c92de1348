"""What the plug-in does in each of vLLM's processes: checks, loads the adapter, registers the steered architecture.

Three more places of vLLM are changed, none of them in the model: the names of cache blocks (`keys`), the method that
makes every front end's configuration, and the one that takes requests. The last two refuse what cannot be served,
before anything runs.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asa_adapter.adapter import ASAAdapter
from asa_adapter.matching.prompt_resemblance import Resemblance
from asa_adapter.vllm.block_keys import install_block_keys
from asa_adapter.vllm.refusals import architecture_of, check_engine, registered_class
from asa_adapter.vllm.requests import steering_factor, told
from asa_adapter.vllm.source_check import check_vllm

ADAPTER, REVISION = "ASA_ADAPTER", "ASA_ADAPTER_REVISION"
CONFIG_KEY = "asa_adapter"  # in vLLM's additional_config, which goes into the key of its compile cache
_STEERED_MODELS = "asa_adapter.vllm.model_classes"


@dataclass(frozen=True)
class Plugin:
    """What this process steers.

    Attributes:
        adapter: the adapter.
        digest: that of the adapter.
        architecture: name under which vLLM knows the model.
        module: where vLLM's own class for it is.
        class_name: that class.
    """

    adapter: ASAAdapter
    digest: str
    architecture: str
    module: str
    class_name: str


_active: Plugin | None = None


def active() -> Plugin | None:
    """What this process steers; None before `install`."""
    return _active


def install() -> None:
    """Prepares this process for the adapter that the environment names; calling it again does nothing.

    Raises:
        RuntimeError: a vLLM that differs in what the plug-in leans on.
        AdapterDownloadError, AdapterFormatError, FileNotFoundError: the adapter cannot be loaded.
        IncompatibleModelError: its architecture is not steered in vLLM.
    """
    global _active
    if _active is not None:
        return
    import vllm
    from vllm import ModelRegistry
    from vllm.version import __version__

    check_vllm(Path(vllm.__file__).parent, __version__)
    adapter = ASAAdapter.from_pretrained(os.environ[ADAPTER], revision=os.environ.get(REVISION) or None)
    if adapter.commit:
        # Child processes load the same commit, even if the branch has moved by then.
        os.environ[REVISION] = adapter.commit
    architecture = architecture_of(adapter.config)
    own = registered_class(ModelRegistry.models, architecture)
    plugin = Plugin(adapter, adapter.digest(), architecture, own.module_name, own.class_name)
    ModelRegistry.register_model(architecture, f"{_STEERED_MODELS}:{architecture}")
    if adapter.config.layer < adapter.config.num_layers - 1:  # no layer after the last one caches anything
        install_block_keys(plugin.digest)
    _check_configurations(plugin)
    _check_requests(Resemblance(adapter.config))
    _active = plugin


def _check_configurations(plugin: Plugin) -> None:
    """Has the plug-in check every front end's configuration, and record in it which adapter it is for."""
    from vllm.engine.arg_utils import EngineArgs

    original = EngineArgs.create_engine_config

    @functools.wraps(original)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        vllm_config = original(self, *args, **kwargs)
        check_engine(vllm_config, plugin.adapter.config, plugin.architecture)
        vllm_config.additional_config[CONFIG_KEY] = plugin.digest
        return vllm_config

    EngineArgs.create_engine_config = create_engine_config


def _check_requests(fitted: Resemblance) -> None:
    """Has the plug-in check every request on arrival, so that a wrong one is answered with an error of its own.

    A request whose prompt offers no tools or ends in another kind of state, unlike the fitted ones, is left to the
    bare model.
    """
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import BeamSearchParams
    from vllm.v1.engine.input_processor import InputProcessor

    process, resolve = InputProcessor.process_inputs, InputProcessor.resolve_watermarking

    @functools.wraps(process)
    def process_inputs(self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            steering_factor(params.extra_args)
        except ValueError as error:
            raise VLLMValidationError(str(error), parameter="extra_args") from error
        request = process(self, request_id, prompt, params, *args, **kwargs)
        if request.resumable:
            raise VLLMValidationError("a steered model takes no streaming input: its prompt has no one end")
        if request.prompt_token_ids is not None:
            params = request.sampling_params
            params.extra_args = told(params.extra_args, request.prompt_token_ids, fitted)
        return request

    @functools.wraps(resolve)
    def resolve_watermarking(self: Any, params: Any) -> Any:
        # Every beam search calls this method before it begins. To the engine each of its steps is a new prompt, and
        # would be steered again.
        if isinstance(params, BeamSearchParams):
            raise VLLMValidationError("a steered model has no beam search in vLLM; transformers steers it")
        return resolve(self, params)

    InputProcessor.process_inputs = process_inputs
    InputProcessor.resolve_watermarking = resolve_watermarking
