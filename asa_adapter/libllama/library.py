"""llama.cpp's C interface, called by ctypes in a shared library that is used as it is, and the checks that it fits.

Parameters are structures by value, whose layout may change with any build. So a build is pinned, and the values that
the library gives by default must be found where they are expected: another layout would be read elsewhere.
"""

import ctypes
import functools
import hashlib
import importlib.util
import os
from collections.abc import Sequence
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int8, c_int32, c_size_t, c_uint32, c_void_p
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from asa_adapter.errors import IncompatibleModelError

PACKAGE = "xllamacpp"
# Builds of llama.cpp whose steered answers were compared with those of transformers.
OLDEST, NEWEST = 11549, 11549
LIBRARY = "ASA_LLAMA_LIBRARY"
_INSTALL = 'install the tested build with `pip install "asa-adapter[gguf]"`'

# Asked of each node of the graph whether its data are wanted, then called with them.
EvalCallback = ctypes.CFUNCTYPE(c_bool, c_void_p, c_bool, c_void_p)
_LogCallback = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_ERROR = 4  # of ggml's log levels
_KEPT_LINES = 20


class ModelParams(ctypes.Structure):
    """`llama_model_params`."""

    _fields_ = (
        *((name, c_void_p) for name in ("devices", "tensor_buft_overrides")),
        *((name, c_int32) for name in ("n_gpu_layers", "split_mode", "load_mode", "lazy_mode", "main_gpu")),
        *((name, c_void_p) for name in ("tensor_split", "progress_callback", "progress_callback_user_data")),
        ("kv_overrides", c_void_p),
        *((name, c_bool) for name in ("vocab_only", "check_tensors", "use_extra_bufts", "no_host", "no_alloc")),
        ("load_mtp", c_bool),
    )


class ContextParams(ctypes.Structure):
    """`llama_context_params`."""

    _fields_ = (
        *((name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq", "n_outputs_max")),
        ("n_outputs_max_per_seq", c_uint32),
        *((name, c_int32) for name in ("n_threads", "n_threads_batch", "ctx_type", "rope_scaling_type")),
        *((name, c_int32) for name in ("pooling_type", "attention_type", "flash_attn_type")),
        *((name, c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor")),
        *((name, c_float) for name in ("yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", EvalCallback),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("moe_cache_size", c_size_t),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        *((name, c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full")),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )


class Batch(ctypes.Structure):
    """`llama_batch`."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


class GGUFParams(ctypes.Structure):
    """`gguf_init_params`."""

    _fields_ = (("no_alloc", c_bool), ("ctx", c_void_p))


# Values that the pinned builds give by default; all fields that are not named here are 0.
_CONTEXT_DEFAULTS: dict[str, Any] = {"n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1}
_CONTEXT_DEFAULTS |= {"n_outputs_max_per_seq": 1, "n_threads": 4, "n_threads_batch": 4, "type_k": 1, "type_v": 1}
_CONTEXT_DEFAULTS |= dict.fromkeys(("rope_scaling_type", "pooling_type", "attention_type", "flash_attn_type"), -1)
_CONTEXT_DEFAULTS |= dict.fromkeys(("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"), -1.0)
_CONTEXT_DEFAULTS |= {"defrag_thold": -1.0, "offload_kqv": True, "no_perf": True, "op_offload": True, "swa_full": True}
_MODEL_DEFAULTS: dict[str, Any] = {"n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1}
_MODEL_DEFAULTS |= {"use_extra_bufts": True}

# What is called: name, type of the result, types of the arguments.
_FUNCTIONS: tuple[tuple[str, Any, Sequence[Any]], ...] = (
    ("llama_backend_init", None, ()),
    ("llama_log_set", None, (_LogCallback, c_void_p)),
    ("llama_model_default_params", ModelParams, ()),
    ("llama_context_default_params", ContextParams, ()),
    ("llama_model_load_from_file", c_void_p, (c_char_p, ModelParams)),
    ("llama_model_free", None, (c_void_p,)),
    ("llama_init_from_model", c_void_p, (c_void_p, ContextParams)),
    ("llama_free", None, (c_void_p,)),
    ("llama_model_n_embd", c_int32, (c_void_p,)),
    ("llama_model_n_layer", c_int32, (c_void_p,)),
    ("llama_model_n_ctx_train", c_int32, (c_void_p,)),
    ("llama_model_is_recurrent", c_bool, (c_void_p,)),
    ("llama_model_is_hybrid", c_bool, (c_void_p,)),
    ("llama_model_is_diffusion", c_bool, (c_void_p,)),
    ("llama_model_has_encoder", c_bool, (c_void_p,)),
    ("llama_model_meta_val_str", c_int32, (c_void_p, c_char_p, c_char_p, c_size_t)),
    ("llama_model_chat_template", c_char_p, (c_void_p, c_char_p)),
    ("llama_model_get_vocab", c_void_p, (c_void_p,)),
    ("llama_vocab_type", c_int, (c_void_p,)),
    ("llama_vocab_n_tokens", c_int32, (c_void_p,)),
    ("llama_vocab_bos", c_int32, (c_void_p,)),
    ("llama_vocab_eos", c_int32, (c_void_p,)),
    ("llama_vocab_is_eog", c_bool, (c_void_p, c_int32)),
    ("llama_vocab_get_text", c_char_p, (c_void_p, c_int32)),
    ("llama_ftype_name", c_char_p, (c_int,)),
    ("llama_decode", c_int32, (c_void_p, Batch)),
    ("llama_get_logits_ith", POINTER(c_float), (c_void_p, c_int32)),
    ("llama_set_adapter_cvec", c_int32, (c_void_p, c_void_p, c_size_t, c_int32, c_int32, c_int32)),
    ("llama_get_memory", c_void_p, (c_void_p,)),
    ("llama_memory_clear", None, (c_void_p, c_bool)),
    ("llama_memory_seq_rm", c_bool, (c_void_p, c_int32, c_int32, c_int32)),
    ("llama_memory_seq_cp", None, (c_void_p, c_int32, c_int32, c_int32, c_int32)),
    ("llama_state_seq_get_size", c_size_t, (c_void_p, c_int32)),
    ("llama_state_seq_get_data", c_size_t, (c_void_p, c_void_p, c_size_t, c_int32)),
    ("llama_state_seq_set_data", c_size_t, (c_void_p, c_void_p, c_size_t, c_int32)),
    ("ggml_backend_tensor_get", None, (c_void_p, c_void_p, c_size_t, c_size_t)),
    ("ggml_backend_tensor_set", None, (c_void_p, c_void_p, c_size_t, c_size_t)),
    ("ggml_get_name", c_char_p, (c_void_p,)),
    ("ggml_nbytes", c_size_t, (c_void_p,)),
    ("gguf_init_from_file", c_void_p, (c_char_p, GGUFParams)),
    ("gguf_free", None, (c_void_p,)),
    ("gguf_get_data_offset", c_size_t, (c_void_p,)),
)


class Library:
    """A shared library of llama.cpp; the C functions are its attributes.

    Args:
        path: the shared library.

    Raises:
        IncompatibleModelError: it cannot be loaded, lacks a function, or its structures have another layout.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[str] = []
        self._log = _LogCallback(self._keep)
        try:
            shared = ctypes.CDLL(str(path))
        except OSError as error:
            raise IncompatibleModelError(f"{path} cannot be loaded as a shared library: {error}") from error
        for name, result, arguments in _FUNCTIONS:
            try:
                function = getattr(shared, name)
            except AttributeError:
                raise IncompatibleModelError(
                    f"{path} has no function {name}: it is another library, an older llama.cpp, or hides its C "
                    f"interface; {_INSTALL}"
                ) from None
            function.restype, function.argtypes = result, list(arguments)
            setattr(self, name.removeprefix("llama_"), function)
        self._check_layout()
        self.log_set(self._log, None)
        self.backend_init()

    @functools.cached_property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the library's file: another build rounds otherwise."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)  # tells a type checker that there are attributes of any name

    def _check_layout(self) -> None:
        for what, found, defaults in (
            ("llama_context_params", self.context_default_params(), _CONTEXT_DEFAULTS),
            ("llama_model_params", self.model_default_params(), _MODEL_DEFAULTS),
        ):
            for name, kind in found._fields_:
                value = getattr(found, name)
                if kind is EvalCallback:
                    value = ctypes.cast(value, c_void_p).value
                if (value or 0) != defaults.get(name, 0):
                    raise IncompatibleModelError(
                        f"{self.path} is another build of llama.cpp than those that were tested ({_tested()}): "
                        f"{what}.{name} is {value!r} by default; expected {defaults.get(name, 0)!r}. {_INSTALL}"
                    )

    def _keep(self, level: int, text: bytes, _: Any) -> None:
        if level == _ERROR:
            self._lines = [*self._lines[1 - _KEPT_LINES :], text.decode(errors="replace").strip()]

    def errors(self) -> str:
        """What the library has logged as errors since this was asked last, as one line."""
        lines, self._lines = self._lines, []
        return "; ".join(line.partition(": ")[2] or line for line in lines)


def open_library(path: str | Path | None = None) -> Library:
    """The library of the installed wheel, or another one; it is loaded when first asked for.

    Args:
        path: a shared library (libllama.so, libllama.dylib, llama.dll); None for that named by the environment
            variable ASA_LLAMA_LIBRARY, else that of the wheel.

    Raises:
        IncompatibleModelError: it is not installed, another build, or does not fit.
    """
    given = path or os.environ.get(LIBRARY)
    return _opened(str(given) if given else str(_library_of_wheel()))


@functools.cache
def _opened(path: str) -> Library:
    return Library(Path(path))


def _library_of_wheel() -> Path:
    """The path of the library in the installed wheel, whose build of llama.cpp was tested."""
    try:
        build = _build(version(PACKAGE))
    except PackageNotFoundError:
        raise IncompatibleModelError(f"GGUF models need the package {PACKAGE}: {_INSTALL}") from None
    if build is None or not OLDEST <= build <= NEWEST:
        raise IncompatibleModelError(
            f"{PACKAGE} {version(PACKAGE)} has another build of llama.cpp than those that were tested ({_tested()}); "
            f"{_INSTALL}"
        )
    spec = importlib.util.find_spec(PACKAGE)  # found, not imported: its own code has nothing to do with this
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [path for folder in folders for path in sorted(Path(folder).glob(f"{PACKAGE}*")) if path.is_file()]
    if not found:
        raise IncompatibleModelError(f"the package {PACKAGE} has no shared library; {_INSTALL}")
    return found[0]


def _build(release: str) -> int | None:
    """The build of llama.cpp in a version such as 2026.10.11549 of the wheel."""
    last = release.split(".")[2:3]
    return int(last[0]) if last and last[0].isdigit() else None


def _tested() -> str:
    """The builds of llama.cpp whose library was tested."""
    return f"b{OLDEST}" if OLDEST == NEWEST else f"b{OLDEST} to b{NEWEST}"
