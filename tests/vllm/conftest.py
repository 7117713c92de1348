"""What the tests of several files take of vLLM."""

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from engines import fake


@pytest.fixture
def forward_context(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The layers of vLLM's forward context."""
    found: dict[str, Any] = {}
    context = SimpleNamespace(no_compile_layers=found)
    fake(
        monkeypatch,
        "vllm.forward_context",
        get_forward_context=lambda: context,
        create_forward_context=lambda metadata, config: context,
        override_forward_context=contextlib.nullcontext,
        set_forward_context=lambda metadata, config, num_tokens, skip_compiled: contextlib.nullcontext(),
    )
    return found
