import copy
import dataclasses
import json
import math
from typing import Any

import numpy as np
import peft
import pytest
import torch
from models import traces

from asa_adapter import ASAAdapter, IncompatibleModelError
from asa_adapter.data.prompts import chat_template_sha256, encode_prompt, with_chat_template
from asa_adapter.diagnostics.explanation import Explanation
from asa_adapter.parts.linear import fitted_logistic
from asa_adapter.states import collect_hidden_states

HUB_COMMIT = "0" * 40
LAZY = "how much is 48713 times 9264"


@pytest.fixture(scope="module")
def adapter(tiny_adapter: ASAAdapter) -> ASAAdapter:
    return tiny_adapter


@pytest.fixture(scope="module")
def explained(adapter: ASAAdapter, tiny_lfm2: Any) -> Explanation:
    return adapter.explain(*tiny_lfm2, LAZY)


def test_the_decision_is_that_of_the_adapter(explained: Explanation, adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    row = {"instruction": LAZY, "tools": adapter.config.tools}
    state = collect_hidden_states(model, tokenizer, [row], progress=False).states[adapter.config.layer]
    [decision] = adapter.decide(state)
    assert (explained["domain"], explained["gate"]) == (decision.domain, decision.gate) == ("math", 1)
    assert explained["p_tool"] == pytest.approx(decision.p_tool, abs=1e-4)
    assert explained["p_by_domain"]["math"] == pytest.approx(decision.p_tool, abs=1e-4)
    assert explained["domain"] == max(explained["domains"], key=explained["domains"].get)
    assert sum(explained["domains"].values()) == pytest.approx(1)


def test_the_prompt_is_the_rendered_one(explained: Explanation, adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    tokenizer = tiny_lfm2[1]
    ids = encode_prompt(tokenizer, [{"role": "user", "content": LAZY}], adapter.config.tools)
    prompt = explained["prompt"]
    assert (prompt["tokens"], prompt["position"]) == (len(ids), len(ids) - 1)
    assert tokenizer.decode(ids).endswith(prompt["tail"])
    assert LAZY in prompt["tail"]
    assert prompt["tools"] == ["calculator", "python_interpreter", "web_search", "translator"]


def test_the_step_and_what_it_does_are_measured(explained: Explanation, adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    step, start = explained["step"], explained["start"]
    assert step["absolute"] == pytest.approx(adapter.config.step)
    assert step["relative"] == pytest.approx(step["absolute"] / step["state_norm"])
    assert 0.5 < step["relative"] < 2
    assert start["token"] == start["marker"] == "<|tool_call_start|>"
    assert 0 < start["before"] < 0.5 < start["after"] < 1


def test_a_capped_step_is_told_as_short_as_it_was_made(adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    config = dataclasses.replace(adapter.config, cap=0.25)
    step = ASAAdapter(config, adapter.vectors, adapter.router, adapter.probes).explain(*tiny_lfm2, LAZY)["step"]
    assert step["relative"] == pytest.approx(0.25)
    assert step["absolute"] == pytest.approx(0.25 * step["state_norm"])
    assert step["alpha"] == pytest.approx(step["absolute"] / config.residual_norm)
    assert step["alpha"] < config.alpha


def test_the_step_along_what_is_the_domains_own_is_told_by_its_own_length(adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    """Readiness is 1/2 for every state here, so that one that needs a call counts as ready."""
    rule = {"ready_below": 0.4, "domain_alpha": 0.3}
    config = dataclasses.replace(adapter.config, by_state={"first": rule})
    even = fitted_logistic(np.array([0, 1]), np.zeros((1, config.hidden_size)), np.zeros(1), 1.0, 0)
    own = ASAAdapter(config, adapter.vectors, adapter.router, adapter.probes.with_readiness({"": even}))
    found = own.explain(*tiny_lfm2, LAZY)
    assert found["gate"] == 1
    assert found["step"]["alpha"] == pytest.approx(0.3)
    assert found["step"]["absolute"] == pytest.approx(0.3 * config.residual_norm)


def test_a_call_begins_with_any_token_that_opens_one(adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    ids = encode_prompt(tokenizer, [{"role": "user", "content": LAZY}], adapter.config.tools)
    with torch.no_grad():
        first = model(torch.tensor([ids])).logits[0, -1].softmax(dim=0)
    likeliest = int(first.argmax())  # no opening of the format
    config = dataclasses.replace(adapter.config, forms=("lfm2", "json"), openings=(likeliest,))
    own = ASAAdapter(config, adapter.vectors, adapter.router, adapter.probes)
    openings = own.parser(tokenizer).opening_ids(tokenizer)
    start = own.explain(model, tokenizer, LAZY, max_new_tokens=2)["start"]
    assert start["token"] == tokenizer.decode([likeliest])
    assert start["before"] == pytest.approx(float(first[list(openings)].sum()), rel=1e-4)
    assert start["before"] > float(first[likeliest]) > 0
    assert likeliest not in adapter.parser(tokenizer).opening_ids(tokenizer)


@pytest.mark.parametrize(("bias", "said"), [(math.inf, "-> 1 (forced)"), (3.0, "(logits +3)")])
def test_a_bias_is_shown_by_what_it_makes_of_the_opening(
    explained: Explanation, adapter: ASAAdapter, tiny_lfm2: Any, bias: float, said: str
) -> None:
    other = adapter.with_action("bias", bias, tokenizer=tiny_lfm2[1])
    found = other.explain(*tiny_lfm2, LAZY, max_new_tokens=2)
    start, before = found["start"], explained["start"]["before"]
    odds = before / (1 - before) * math.exp(min(bias, 700.0))
    assert start["before"] == pytest.approx(before, rel=1e-4)
    assert start["after"] == pytest.approx(odds / (1 + odds), rel=1e-4)
    assert (found["action"], found["gate"], found["step"]["absolute"]) == ("bias", 1, 0.0)
    assert said in found.page()
    assert "step         none" in found.page()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_push_is_named_as_the_action(explained: Explanation) -> None:
    assert (explained["action"], explained["start"]["bias"]) == ("steer", 0.0)


def test_both_answers_are_shown_with_their_calls(explained: Explanation, adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    base, steered = explained["base"], explained["steered"]
    assert not base["triggered"]
    assert base["calls"] == []
    assert base["errors"] == []
    assert steered["triggered"]
    assert steered["arguments"]
    assert [call["name"] for call in steered["calls"]] == ["calculator"]
    model, tokenizer = tiny_lfm2
    ids = encode_prompt(tokenizer, [{"role": "user", "content": LAZY}], adapter.config.tools)
    output = model.generate(torch.tensor([ids]), max_new_tokens=64, do_sample=False)
    assert tokenizer.decode(output[0, len(ids) :]) == base["answer"]


def test_it_is_json_and_leaves_the_model_alone(explained: Explanation, tiny_lfm2: Any) -> None:
    assert json.loads(json.dumps(explained, allow_nan=False)) == explained
    assert traces(tiny_lfm2[0]) == []


@pytest.mark.parametrize("width", [80, 60])
def test_the_page_fits_the_terminal_and_says_everything(explained: Explanation, width: int) -> None:
    page = explained.page(width)
    assert max(map(len, page.splitlines())) <= width
    for said in ("domain       math", "the gate is +1", "of the state's norm", "Answer, base: no call", LAZY):
        assert said in page
    assert "Answer, steered: a call that fits its tool's schema" in page


def test_the_page_of_a_shut_gate_shows_no_step(explained: Explanation) -> None:
    shut = Explanation(
        explained | {"gate": 0, "p_tool": 0.5, "step": explained["step"] | {"absolute": 0.0, "relative": 0.0}}
    )
    lines = [line.strip() for line in shut.page().splitlines()]
    assert "step         none" in lines
    assert "+0" not in shut.page()
    assert any(line.endswith("with tau 0.6 the gate is 0 (p between 0.4 and 0.6)") for line in lines)


def test_an_adapter_that_abstains_says_so(adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    config = dataclasses.replace(adapter.config, alpha=0.0)
    idle = ASAAdapter(config, adapter.vectors, adapter.router, adapter.probes).explain(*tiny_lfm2, LAZY)
    assert "this adapter abstains, so it leaves every prompt alone, whatever p(tool) says" in idle["prompt"]["notes"]
    assert "! this adapter abstains" in idle.page(80)
    assert "with tau" not in idle.page(80)
    assert "; this adapter abstains: whatever p is, it adds nothing" in idle.page(120)


@pytest.mark.parametrize(
    ("gate", "calls", "told"),
    [
        (-1, True, "It calls all the same: for this prompt the action is too weak (raise steering.alpha, or"),
        (1, False, "It does not call all the same: for this prompt the action is too weak (raise"),
        (1, True, ""),
        (-1, False, ""),
        (0, True, ""),
    ],
)
def test_an_answer_that_is_not_what_the_gate_is_for_is_told(
    explained: Explanation, gate: int, calls: bool, told: str
) -> None:
    steered = {**explained["steered"], "triggered": calls}
    page = Explanation(**{**explained, "gate": gate, "steered": steered}).page(200)
    assert told in " ".join(page.split())
    assert ("all the same" in page) == bool(told)


@pytest.mark.parametrize(
    ("token", "told"), [('{"', """p('{"') 0.3"""), ("<|tool_call_start|>", "p(<|tool_call_start|>) 0.3")]
)
def test_a_token_of_punctuation_stands_in_quotation_marks(explained: Explanation, token: str, told: str) -> None:
    shown = Explanation(**{**explained, "start": {**explained["start"], "token": token, "before": 0.3}})
    assert f"call begins  {told}" in shown.page(100)


def test_printed_it_takes_the_terminals_width(explained: Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert str(explained) == explained.page(60)
    monkeypatch.setenv("COLUMNS", "200")
    assert str(explained) == explained.page(80)


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        ({"format": False, "tool_name": False, "arguments": False}, "a call with a fault (format)"),
        ({"format": True, "tool_name": False, "arguments": False}, "a call with a fault (tool name)"),
        ({"format": True, "tool_name": True, "arguments": False}, "a call with a fault (arguments)"),
    ],
)
def test_a_fault_is_named(explained: Explanation, check: dict[str, bool], verdict: str) -> None:
    changed = Explanation({**explained, "steered": {**explained["steered"], **check, "errors": ["wrongly " * 40]}})
    page = changed.page(60)
    assert f"Answer, steered: {verdict}" in page
    assert page.count("wrongly") == 40
    assert max(map(len, page.splitlines())) <= 60


def test_a_chat_and_other_tools_can_be_explained(adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    found = adapter.explain(*tiny_lfm2, chat, tools=[], max_new_tokens=4)
    assert found["prompt"]["tools"] == []
    assert "Be brief." in found["prompt"]["tail"]


def test_a_template_of_the_adapters_own_renders_the_prompt(adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    tokenizer = tiny_lfm2[1]
    template = tokenizer.chat_template.replace("List of tools", "Available tools")
    digest = chat_template_sha256(with_chat_template(tokenizer, template))
    config = dataclasses.replace(adapter.config, chat_template=template, chat_template_sha256=digest)
    own = ASAAdapter(config, adapter.vectors, adapter.router, adapter.probes)
    how: dict[str, Any] = {"tools": [{"name": "f"}], "max_new_tokens": 2}
    found = own.explain(*tiny_lfm2, [{"role": "user", "content": "hi"}], **how)
    assert "Available tools: [" in found["prompt"]["tail"]
    own.commit = HUB_COMMIT
    with pytest.raises(ValueError, match=r"from the Hub with a chat template of its own.*give trust_template=True"):
        own.explain(*tiny_lfm2, "hi", **how)
    trusted = own.explain(*tiny_lfm2, "hi", **how, trust_template=True)
    assert trusted["prompt"] == found["prompt"]


def test_an_adapter_from_the_hub_without_a_template_needs_no_trust(adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    own = ASAAdapter(adapter.config, adapter.vectors, adapter.router, adapter.probes)
    own.commit = HUB_COMMIT
    assert own.explain(*tiny_lfm2, "hi", max_new_tokens=2)["prompt"]["tools"]


def test_a_steered_model_is_refused(adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    with adapter.attach(tiny_lfm2[0]), pytest.raises(ValueError, match=r"has an adapter attached; remove\(\) it"):
        adapter.explain(*tiny_lfm2, LAZY)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_peft_model_with_learnt_prompts_is_refused_as_by_attach(adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(copy.deepcopy(tiny_lfm2[0]), config)
    with pytest.raises(IncompatibleModelError, match="learnt tokens before the prompt"):
        adapter.explain(model, tiny_lfm2[1], "How much is 2 + 2?")
