"""Configs with the defaults and with every field set, and their stored text."""

import json
from typing import Any

from asa_adapter import ASAConfig

TOOL = {"name": "wetter", "description": "Wie ist das Wetter? ☔", "parameters": {"type": "object", "properties": {}}}
DIGEST = "0123456789abcdef" * 4
OTHER_DIGEST = "f" * 64


def make(**changes: Any) -> ASAConfig:
    return ASAConfig(**{"hidden_size": 8, "num_layers": 4, "layer": 2, "domains": ("math", "code"), **changes})


def full() -> ASAConfig:
    """A config of the newest format, in which no field has its default."""
    return make(
        alpha=0.75,
        tau=0.8,
        beta=0.25,
        residual_norm=3.5,
        probe="pooled",
        base_model="LiquidAI/LFM2.5-1.2B-Instruct",
        base_model_revision="main",
        base_model_fingerprint="bfloat16:0123456789abcdef:-",
        model_type="lfm2",
        layer_path="model.layers",
        tool_call_format="lfm2",
        tool_call_start="<|tool_call_start|>",
        tool_call_end="<|tool_call_end|>",
        chat_template="{{ messages }}",
        chat_template_sha256=DIGEST,
        chat_template_variables={"enable_thinking": False},
        tools=[TOOL],
        files={"router.skops": DIGEST},
        prompt_end=(3, 4, 5),
        generation_tokens=2,
        tools_marks=((7, 8), (9,)),
        tool_lists=(DIGEST,),
        forms=("lfm2", "json"),
        openings=(5, 6),
        action="both",
        bias=2.5,
        opening_ids=(4, 5, 6),
        read_layers=(0, 1),
        states=("first", "after_result"),
        state_marks={"first": ((11,),), "after_result": ((12, 13), (14,))},
        by_state={"after_result": {"alpha": 0.5, "alpha_down": 0.25, "tau": 0.9, "beta": 1.0}},
        cap=0.15,
    )


def stored(config: ASAConfig, **changes: Any) -> str:
    """The config's file with some of its keys changed."""
    return json.dumps({**json.loads(config.to_json()), **changes})
