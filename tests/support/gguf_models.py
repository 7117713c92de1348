"""Whether GGUF models can be tested here: the extra [gguf] brings llama.cpp, and what writes such files."""

from importlib.util import find_spec

import pytest

needs_llamacpp = pytest.mark.skipif(
    not (find_spec("xllamacpp") and find_spec("gguf")),
    reason="the extra [gguf] is not installed: GGUF models are tested in an environment of their own",
)
