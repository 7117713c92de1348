"""What a generate() call is asked for before it begins."""

from typing import Any

import pytest
import torch
from models import fitted_adapter, prompts, random_model, traces


@pytest.mark.parametrize(
    ("mask", "found"),
    [([[1] * 9] * 3, "list"), (torch.ones(3, 1, 1, 9), r"\(3, 1, 1, 9\)"), ({"full_attention": None}, "dict")],
)
def test_an_attention_mask_of_another_shape_is_refused_by_name(mask: Any, found: str) -> None:
    model = random_model()
    message = f"attention_mask is {found}; expected a tensor of shape"
    with fitted_adapter().attach(model), pytest.raises(TypeError, match=message):
        model.generate(prompts(), attention_mask=mask, max_new_tokens=1)

    assert traces(model) == []
