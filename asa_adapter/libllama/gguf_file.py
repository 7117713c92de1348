"""What a GGUF file says of its model: architecture, width, depth, quantisation, tokens that end a text, tokenizer."""

import contextlib
import ctypes
import mmap
import re
import zlib
from pathlib import Path
from typing import Any

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.files import sha256
from asa_adapter.libllama.library import GGUFParams, Library

_PIECE = 1 << 24
# Of llama.cpp's names of file types, such as "all F32" or "Q4_K - Medium".
_STORED = re.compile(r"(?:\(guessed\) )?(?:all )?([A-Z0-9_]+)(?: - ([SML])(?:mall|edium|arge))?")
_NO_VOCABULARY = 0  # llama_vocab_type

# Architectures that GGUF writes otherwise than transformers writes its model types.
_TYPES = {
    "gptneox": "gpt_neox",
    "lfm2moe": "lfm2_moe",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "gemma3": "gemma3_text",
    "gpt-oss": "gpt_oss",
    "phimoe": "phimoe",
}


def model_type(architecture: str) -> str:
    """What transformers calls a GGUF architecture."""
    return _TYPES.get(architecture, architecture)


def load_model(library: Library, path: Path) -> int:
    """The handle of a model file's weights, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        IncompatibleModelError: llama.cpp cannot load it: no GGUF, cut short, or another architecture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    params = library.model_default_params()
    params.n_gpu_layers = 0
    library.errors()
    handle = library.model_load_from_file(str(path).encode(), params)
    if not handle:
        raise IncompatibleModelError(f"{path.name} cannot be loaded by llama.cpp: {library.errors()}")
    return int(handle)


def metadata(library: Library, model: int, key: str) -> str | None:
    """A value of the GGUF file's metadata as text; None where it has no such key."""
    size = library.model_meta_val_str(model, key.encode(), None, 0)
    if size < 0:
        return None
    text = ctypes.create_string_buffer(size + 1)
    library.model_meta_val_str(model, key.encode(), text, size + 1)
    return text.value.decode(errors="replace")


def stored_as(library: Library, model: int) -> str:
    """How most weights of a file are stored, such as "F32", "Q8_0" or "Q4_K_M"; "unknown" where it does not say."""
    kind = metadata(library, model, "general.file_type") or ""
    name = library.ftype_name(int(kind)).decode() if kind.isdigit() else ""
    found = _STORED.match(name)
    return "unknown" if found is None else found[1] + (f"_{found[2]}" if found[2] else "")


def weights_digest(library: Library, model: int, path: Path) -> str:
    """A digest of all weights in a file and its further parts; another chat template in it does not change it.

    Returns:
        16 hexadecimal digits.

    Raises:
        IncompatibleModelError: a file is no GGUF, or a further part has another name than llama.cpp gives it.
    """
    sums = [_file_digest(library, part) for part in _file_parts(metadata(library, model, "split.count"), path)]
    return sha256(repr(sums).encode())[:16]


def _file_parts(count: str | None, path: Path) -> list[Path]:
    """The files that a model was split into, by the name of the first."""
    total = int(count or 1)
    if total < 2:
        return [path]
    stem = path.name.removesuffix(f"-00001-of-{total:05d}.gguf")
    return [path.with_name(f"{stem}-{number:05d}-of-{total:05d}.gguf") for number in range(1, 1 + total)]


def _file_digest(library: Library, path: Path) -> list[int]:
    """The size of the weights in a GGUF file, and a checksum of each piece of them."""
    found = library.gguf_init_from_file(str(path).encode(), GGUFParams(True, None))
    if not found:
        raise IncompatibleModelError(f"{path.name} is no GGUF file: {library.errors()}")
    begin = library.gguf_get_data_offset(found)
    library.gguf_free(found)
    with path.open("rb") as file, contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as data:
        pieces = [zlib.crc32(data[start : start + _PIECE]) for start in range(begin, len(data), _PIECE)]
    return [path.stat().st_size - begin, *pieces]


def text_ends(library: Library, vocabulary: int) -> list[int]:
    """Ids of the tokens with which a text ends, as a GGUF file names them; empty where it has no vocabulary."""
    if library.vocab_type(vocabulary) == _NO_VOCABULARY:
        return []
    return [token for token in range(library.vocab_n_tokens(vocabulary)) if library.vocab_is_eog(vocabulary, token)]


def file_tokenizer(library: Library, model: int, path: Path) -> Any:
    """The tokenizer that the file carries, with its chat template, as transformers reads it.

    Raises:
        IncompatibleModelError: it carries none, or transformers cannot read it.
    """
    import transformers

    vocabulary = library.model_get_vocab(model)
    way_out = "name the model's tokenizer with --tokenizer, or load it with AutoTokenizer.from_pretrained(...)"
    if library.vocab_type(vocabulary) == _NO_VOCABULARY:
        raise IncompatibleModelError(f"{path.name} carries no tokenizer; {way_out}")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    # Readers of single architectures fail in any way.
    except Exception as error:
        cause = f"{type(error).__name__}: {str(error)[:300]}"
        raise IncompatibleModelError(
            f"transformers cannot read the tokenizer in {path.name}: {cause}; {way_out}"
        ) from error
    for name, token in (
        ("bos_token", library.vocab_bos(vocabulary)),
        ("eos_token", library.vocab_eos(vocabulary)),
    ):
        if getattr(tokenizer, name) is None and token >= 0:
            setattr(tokenizer, name, library.vocab_get_text(vocabulary, token).decode(errors="replace"))
    if not tokenizer.chat_template and (template := library.model_chat_template(model, None)):
        tokenizer.chat_template = template.decode(errors="replace")
    return tokenizer
