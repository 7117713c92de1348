"""The families of architectures that generate in a given mode."""

import pytest
from models import FAMILIES

LACKS = {
    "mamba2": {"chunked prefill", "draft tokens", "continued cache"},
    "falcon_h1": {"draft tokens", "inputs_embeds"},
}


def families(mode: str = "") -> pytest.MarkDecorator:
    """The families that generate in this mode."""
    return pytest.mark.parametrize("model", sorted(f for f in FAMILIES if mode not in LACKS.get(f, ())), indirect=True)
