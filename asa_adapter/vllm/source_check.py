"""What the plug-in leans on in vLLM, and whether a copy of vLLM has it: read in its source, which is not run."""

import ast
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

TRIED = ("0.32",)  # first two numbers of the versions whose answers were compared with those of transformers
LOG = logging.getLogger("vllm.asa_adapter")  # below vLLM's own, whose level and form it takes
_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Point(NamedTuple):
    """Something of vLLM that the plug-in calls, replaces, overrides or reads.

    Attributes:
        module: its module, without "vllm.".
        name: a function, a class or a method of a class, with a dot; "" for the module itself.
        takes: the names with which a function's parameters begin, without self; None where they do not matter.
        whole: whether it has no parameters but these.
        also: further parameters of a function; attributes of a class; names in a module.
        calls: names that the body of a function calls, as in "self.model".
    """

    module: str
    name: str = ""
    takes: tuple[str, ...] | None = None
    whole: bool = False
    also: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


def _split_words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_V1, _V2 = "v1.worker.gpu_model_runner", "v1.worker.gpu"
_STATE = f"{_V2}.model_states.interface"
_BLOCK = _split_words("request start_token_idx end_token_idx start_mm_idx")
POINTS = (
    # The steered class is registered, built, and told when its weights are there.
    Point("model_executor.models.registry", "_ModelRegistry", also=("models",)),
    Point(
        "model_executor.models.registry", "_ModelRegistry.register_model", _split_words("model_arch model_cls"), True
    ),
    Point("model_executor.models.registry", "_LazyRegisteredModel", also=_split_words("module_name class_name")),
    Point(
        "model_executor.model_loader.base_loader",
        "BaseModelLoader.load_model",
        calls=_split_words("self.load_weights process_weights_after_loading"),
    ),
    Point(
        "model_executor.model_loader.utils",
        "process_weights_after_loading",
        calls=("model.process_weights_after_loading",),
    ),
    # Its operation finds the injection, and what was planned for a step.
    Point("config.compilation", "CompilationConfig", also=_split_words("static_forward_context mode")),
    Point("config.compilation", "CompilationMode", also=("NONE",)),
    Point("forward_context", "ForwardContext", also=("no_compile_layers",)),
    Point("forward_context", "get_forward_context", (), True),
    Point("forward_context", "create_forward_context", _split_words("attn_metadata vllm_config")),
    Point("forward_context", "override_forward_context", ("forward_context",), True),
    Point(
        "forward_context",
        "set_forward_context",
        _split_words("attn_metadata vllm_config num_tokens"),
        also=("skip_compiled",),
    ),
    # Model Runner V1.
    Point(_V1, "GPUModelRunner._model_forward", calls=("self.model",)),
    Point(_V1, "GPUModelRunner.execute_model", calls=("self._model_forward",)),
    Point(_V1, "GPUModelRunner", also=_split_words("compilation_config input_batch query_start_loc requests")),
    Point("v1.worker.gpu_input_batch", "CachedRequestState", also=("sampling_params",)),
    Point(
        "v1.worker.gpu_input_batch",
        "InputBatch",
        also=_split_words("num_reqs req_ids num_computed_tokens_cpu num_prompt_tokens"),
    ),
    # Model Runner V2.
    Point(f"{_V2}.model_runner", "GPUModelRunner.execute_model", calls=("self.model_state.prepare_inputs",)),
    Point(f"{_V2}.model_states", "resolve_model_state_cls", _split_words("vllm_config model"), True),
    Point(_STATE, "ModelState.__init__", ("vllm_config",)),
    Point(_STATE, "ModelState.add_request", _split_words("req_index new_req_data"), True),
    Point(_STATE, "ModelState.prepare_inputs", _split_words("input_batch req_states"), True),
    Point(_STATE, "ModelState.prepare_dummy_inputs", _split_words("num_reqs num_tokens"), True),
    Point(
        f"{_V2}.input_batch",
        "InputBatch",
        also=_split_words("num_reqs idx_mapping_np num_computed_tokens_np query_start_loc_np"),
    ),
    Point(f"{_V2}.states", "RequestState", also=("prompt_len",)),
    Point("v1.core.sched.output", "NewRequestData", also=("sampling_params",)),
    # The names of cache blocks.
    Point("v1.core.kv_cache_utils", "generate_block_hash_extra_keys", _BLOCK, True),
    Point("v1.core.kv_cache_utils", "init_none_hash"),
    Point("v1.core.kv_cache_utils", "get_request_block_hasher", _split_words("hash_block_size caching_hash_fn")),
    Point("v1.core.block_pool", also=("generate_block_hash_extra_keys",)),
    Point("v1.request", "Request", also=_split_words("num_prompt_tokens sampling_params block_hashes")),
    Point(
        "v1.request",
        "Request.__init__",
        _split_words("request_id prompt_token_ids sampling_params pooling_params"),
        also=("block_hasher",),
    ),
    # Where configurations are made, and where requests come in.
    Point("engine.arg_utils", "EngineArgs.create_engine_config"),
    Point("config.vllm", "VllmConfig", also=_split_words("additional_config use_v2_model_runner")),
    Point("exceptions", "VLLMValidationError.__init__", ("message",), also=("parameter",)),
    Point("sampling_params", "SamplingParams", also=("extra_args",)),
    Point("sampling_params", "BeamSearchParams"),
    Point("v1.engine", "EngineCoreRequest", also=_split_words("resumable prompt_token_ids sampling_params")),
    Point("v1.engine.input_processor", "InputProcessor.process_inputs", _split_words("request_id prompt params")),
    Point("v1.engine.input_processor", "InputProcessor.resolve_watermarking", ("params",), True),
    Point(
        "entrypoints.generate.beam_search.offline",
        "BeamSearchOfflineMixin.beam_search",
        calls=("self.llm_engine.input_processor.resolve_watermarking",),
    ),
    Point(
        "entrypoints.generate.beam_search.online",
        "BeamSearchOnlineMixin.beam_search",
        calls=("self.engine_client.input_processor.resolve_watermarking",),
    ),
    # What is refused, by its name in a configuration.
    Point(
        "config.model",
        "ModelConfig",
        also=_split_words("runner_type is_encoder_decoder is_multimodal_model enable_prompt_embeds"),
    ),
    Point(
        "config.model",
        "ModelConfig",
        also=_split_words("architecture get_hidden_size get_total_num_hidden_layers hf_config"),
    ),
    Point(
        "config.parallel",
        "ParallelConfig",
        also=_split_words("pipeline_parallel_size data_parallel_size nnodes"),
    ),
    Point(
        "config.parallel",
        "ParallelConfig",
        also=_split_words("prefill_context_parallel_size decode_context_parallel_size"),
    ),
    Point(
        "config.parallel",
        "ParallelConfig",
        also=_split_words("use_sequence_parallel_moe use_ubatching distributed_executor_backend"),
    ),
    Point("config.cache", "CacheConfig", also=("kv_sharing_fast_prefill",)),
    Point("config.offload", "OffloadConfig", also=_split_words("uva prefetch")),
    Point(
        "config.vllm",
        "VllmConfig",
        also=_split_words("kv_transfer_config ec_transfer_config offload_config lora_config"),
    ),
    Point("config.vllm", "VllmConfig", also=_split_words("diffusion_config speculative_config")),
)


def check_vllm(package: Path, version: str) -> None:
    """Looks at a copy of vLLM; one that was not tried, but looks like those that were, gets a line in the log.

    Args:
        package: its folder, of the name "vllm".
        version: its version.

    Raises:
        RuntimeError: it differs in what the plug-in leans on.
    """
    if found := source_differences(package):
        raise RuntimeError(
            f"this is vLLM {version}, which asa_adapter cannot steer: {'; '.join(found)}. Install a version that was "
            f"tried ({', '.join(TRIED)}), or unset ASA_ADAPTER to serve the bare model"
        )
    if version.split(".")[:2] not in [tried.split(".") for tried in TRIED]:
        LOG.warning(
            "asa_adapter was not tried with vLLM %s, but all %d points that it leans on look as in %s: it is served. "
            "`asa-adapter verify` compares its answers",
            version,
            len(POINTS),
            " and ".join(TRIED),
        )


def source_differences(package: Path) -> list[str]:
    """What differs in a copy of vLLM from what the plug-in leans on, in words; [] where nothing does.

    Args:
        package: its folder, of the name "vllm".
    """
    source = _VLLMSource(package)
    return [f"vllm.{point.module} {told}" for point in POINTS for told in source.lacks(point)]


class _VLLMSource:
    """The source of a package."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._tree: Callable[[str], ast.Module | None] = functools.cache(self._parsed)

    def _parsed(self, module: str) -> ast.Module | None:
        base = self._package.joinpath(*module.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return ast.parse(path.read_text(encoding="utf-8"))
        return None

    def lacks(self, point: Point) -> Iterator[str]:
        """What a point lacks, in words that follow the module's name."""
        tree = self._tree(point.module)
        if tree is None:
            yield "is not there"
            return
        found: ast.AST = tree
        for part in point.name.split(".") if point.name else ():
            inside = [node for node in _defined_statements(found) if isinstance(node, _NAMED) and node.name == part]
            if not inside:
                yield f"has no {point.name}"
                return
            found = inside[0]
        parameters = _parameter_names(found) if isinstance(found, _FUNCTIONS) else None
        if point.takes is not None and parameters is not None:
            begins = parameters[: len(point.takes)] == point.takes
            if not begins or (point.whole and parameters != point.takes):
                more = "" if point.whole else ", ..."
                yield f"{point.name} takes ({', '.join(parameters)}); expected ({', '.join(point.takes)}{more})"
        known = set(parameters) if parameters is not None else _names_in_source(found)
        if missing := [name for name in point.also if name not in known]:
            yield f"{point.name or 'itself'} has no {', '.join(missing)}"
        calls = (node.func for node in ast.walk(found) if isinstance(node, ast.Call)) if point.calls else ()
        called = {ast.unparse(function) for function in calls}
        if missing := [name for name in point.calls if name not in called]:
            yield f"{point.name} does not call {', '.join(missing)}"


def _defined_statements(node: ast.AST) -> Iterator[ast.AST]:
    """What a module or class defines, within conditions too."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If | ast.Try | ast.With):
            yield from _defined_statements(child)


def _parameter_names(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    names = [given.arg for given in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return tuple(names[1:] if names[:1] == ["self"] else names)


def _names_in_source(node: ast.AST) -> set[str]:
    """The names in a module, or the attributes of a class: those of its body, and what its methods name of self."""
    found: set[str] = set()
    for child in _defined_statements(node):
        if isinstance(child, _NAMED):
            found.add(child.name)
        elif isinstance(child, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in child.names}
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    if isinstance(node, ast.ClassDef):
        stored = (child for child in ast.walk(node) if isinstance(child, ast.Attribute))
        found |= {child.attr for child in stored if isinstance(child.value, ast.Name) and child.value.id == "self"}
    return found
