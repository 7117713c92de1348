"""What a command names, loaded: adapter, model and tokenizer, tools, prompts."""

import argparse
import contextlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from asa_adapter.adapter import ASAAdapter
from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.data.rows import complete_row, read_tools
from asa_adapter.files import looks_like_path, read_data_text
from asa_adapter.matching.compatibility import fitting_blocks
from asa_adapter.strict_json import strict_json
from asa_adapter.templates.bounded_rendering import refuse_template_from_hub, with_bounded_template


def load_adapter(options: argparse.Namespace) -> tuple[ASAAdapter, list[dict[str, Any]] | None]:
    """The adapter, and the tools to offer: the user's, else those that the adapter was fitted with."""
    adapter = ASAAdapter.from_pretrained(options.adapter, revision=options.adapter_revision)
    refuse_template_from_hub(adapter.config.chat_template, adapter.commit, options.trust_template)
    tools = given_tools(options)
    return adapter, adapter.config.tools if tools is None else tools


GGUF = ".gguf"  # how the name of a model file of llama.cpp ends
_NOT_OF_VLLM = ("device", "threads", "n_ctx", "max_new_tokens", "allow_mismatch")


def engine_of(options: argparse.Namespace, model: str) -> str:
    """What runs a model: the engine that is named, else the one for such a model.

    Raises:
        ValueError: it cannot run the model, or an option does nothing there.
        ModuleNotFoundError: vLLM is not installed.
    """
    is_file = model.endswith(GGUF)
    engine = str(options.engine or ("gguf" if is_file else "transformers"))
    if (engine == "gguf") != is_file:
        raise ValueError(f"--engine {engine} does not run {model}; expected a {GGUF} file for gguf, and for no other")
    if engine != "vllm":
        _refuse_options(options, "for vllm", "engine_args")
    else:
        _refuse_options(options, "not of vLLM (--engine-args has its own arguments)", *_NOT_OF_VLLM)
        if find_spec("vllm") is None:
            raise ModuleNotFoundError("vLLM is not installed here: see asa_adapter/vllm/README.md")
    return engine


def load_model(
    options: argparse.Namespace, config: ASAConfig | None = None, chat_template: str | None = None
) -> tuple[Any, Any]:
    """Model and tokenizer, on the GPU in the checkpoint's own precision where there is one, else in float32.

    Args:
        options: those of the command.
        config: of an adapter for it: what does not fit is refused before the weights are loaded, and it names the
            model where the user does not.
        chat_template: replaces the tokenizer's own; None keeps it.

    Raises:
        IncompatibleModelError: the adapter does not fit the model.
        ValueError: no model is named.
        OSError: it cannot be loaded.
    """
    name, revision = named_model(options, config)
    if name.endswith(GGUF):
        why = f"for models of transformers, and {name} is another kind"
        _refuse_options(options, why, "device", "dtype", "revision")
        return _load_gguf(name, options, chat_template)
    _refuse_options(options, f"for model files of llama.cpp (.gguf), and {name} is another kind", "n_ctx", "threads")
    if not Path(name).exists() and looks_like_path(name):
        raise FileNotFoundError(f"no model folder at {name}")
    transformers.logging.set_verbosity_error()
    # A bar belongs on a terminal, not in a file or a pipe. From here on this hides the trainer's bars too.
    if not (shows_progress(options) and sys.stderr.isatty()):
        transformers.logging.disable_progress_bar()
    device = options.device or (f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    dtype = options.dtype or ("auto" if device.startswith("cuda") else "float32")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}; expected one such as cpu, cuda:0 or mps: {error}") from error
    if config is not None:
        _refuse_misfit_unloaded(name, revision, config)
    try:
        words = (options.tokenizer, None) if options.tokenizer else (name, revision)
        tokenizer = transformers.AutoTokenizer.from_pretrained(words[0], revision=words[1])
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=dtype)
    except (OSError, ValueError) as error:
        here = "" if Path(name).exists() else "there is no such folder here, and from the Hub: "
        raise OSError(f"cannot load the model {name!r}: {here}{error}") from error
    return model.to(place).eval(), with_bounded_template(tokenizer, chat_template)


def _refuse_options(options: argparse.Namespace, why: str, *names: str) -> None:
    """Refuses options that an engine does not have, rather than ignore them."""
    values = {name: getattr(options, name, None) for name in names}
    if given := [
        f"--{name.replace('_', '-')}" for name, value in values.items() if value is not None and value is not False
    ]:
        raise ValueError(f"{' and '.join(given)}: {why}; leave out what does nothing")


def _load_gguf(name: str, options: argparse.Namespace, chat_template: str | None) -> tuple[Any, Any]:
    """A model file of llama.cpp, and the tokenizer that it carries or that is named."""
    from asa_adapter.llamacpp import GGUFModel

    transformers.logging.set_verbosity_error()
    named = None if options.tokenizer is None else transformers.AutoTokenizer.from_pretrained(options.tokenizer)
    ends = [] if named is None or named.eos_token_id is None else [named.eos_token_id]
    sizes = {} if options.n_ctx is None else {"n_ctx": options.n_ctx}
    model = GGUFModel(name, **sizes, threads=options.threads, ends=ends)
    return model, with_bounded_template(named or model.tokenizer(), chat_template)


def named_model(options: argparse.Namespace, config: ASAConfig | None) -> tuple[str, str | None]:
    """The name and the revision of the model: the user's, else those of the adapter, if it is one on the Hub.

    Raises:
        ValueError: neither names one.
    """
    if options.model is not None:
        return options.model, options.revision
    name = config.base_model if config else None
    if config is None or not name or name.count("/") != 1 or looks_like_path(name):
        known = f"was fitted with a folder called {name!r}" if name else "names none"
        raise ValueError(f"which model? The adapter {known}, which is no id on the Hub; give --model")
    return name, options.revision or config.base_model_revision


def _refuse_misfit_unloaded(name: str, revision: str | None, config: ASAConfig) -> None:
    """Refuses a model of another type, width or depth by its config.json: it is built without weights."""
    skeleton: Any = None
    # Whatever fails here is told when the model itself is loaded.
    with contextlib.suppress(Exception):
        model_config = transformers.AutoConfig.from_pretrained(name, revision=revision)
        with torch.device("meta"):
            skeleton = transformers.AutoModelForCausalLM.from_config(model_config)
    if skeleton is not None:
        fitting_blocks(skeleton, config)


def given_tools(options: argparse.Namespace) -> list[dict[str, Any]] | None:
    """The tools of the user's file, if there is one."""
    if options.tools is None:
        return None
    path = Path(options.tools)
    if not path.is_file():
        raise FileNotFoundError(f"no tools file at {path}")
    return read_tools(path)


def given_template(options: argparse.Namespace) -> str | None:
    """The chat template in the user's file, if there is one."""
    return None if options.chat_template is None else Path(options.chat_template).read_text(encoding="utf-8")


def given_chat(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The chat to answer: one turn of `--prompt`, which may come from stdin, or those of `--messages`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no chat, or there is nothing on stdin.
    """
    if options.messages is None:
        text = sys.stdin.read().rstrip("\n") if options.prompt == "-" else options.prompt
        if not text.strip():
            raise ValueError("the prompt is empty; expected what the user says")
        return [{"role": "user", "content": text}]
    path = Path(options.messages)
    if not path.is_file():
        raise FileNotFoundError(f"no file of messages at {path}")
    try:
        messages = strict_json(read_data_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    chat: list[dict[str, Any]] = complete_row({"messages": messages, "label": 0}, str(path), "", None)["messages"]
    return chat


def shows_progress(options: argparse.Namespace) -> bool:
    """Whether bars and lines about stages are wanted."""
    return not (options.quiet or options.json)
