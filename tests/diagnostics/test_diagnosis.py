import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import fitted_adapter, random_model, traces

import asa_adapter
from asa_adapter.data.prompts import with_chat_template
from asa_adapter.diagnostics.diagnosis import diagnose, findings_table, readiness
from asa_adapter.diagnostics.patient import Finding

NAMES = [
    *("chat_template", "call_format", "tools", "markers", "prompt", "history", "padding", "blocks", "unsteered"),
    *("compiled", "attention", "weights", "thinking", "habit", "triggers", "own_calls"),
]


@pytest.fixture(scope="module")
def healthy(tiny_lfm2: Any, splits: Any) -> dict[str, Finding]:
    """What is found in the tiny LFM2 with its own tools."""
    return {finding.name: finding for finding in diagnose(*tiny_lfm2, tools=splits["test"][0]["tools"])}


def found(model: Any, tokenizer: Any, name: str) -> Finding:
    """The finding of one check; there are all of them, and a cure wherever something is wrong."""
    findings = {finding.name: finding for finding in diagnose(model, tokenizer, max_new_tokens=4)}
    assert list(findings) == NAMES
    assert all(
        finding.meaning and finding.ok == (not finding.cure) for finding in findings.values() if finding.checked
    )
    assert not any(finding.ok for finding in findings.values() if not finding.checked)
    return findings[name]


def test_it_is_exported() -> None:
    assert asa_adapter.diagnose is diagnose


def test_every_check_is_made_and_the_model_left_alone(healthy: dict[str, Finding], tiny_lfm2: Any) -> None:
    assert list(healthy) == NAMES
    assert traces(tiny_lfm2[0]) == []


def test_lfm2s_template_drops_calls_and_all_else_is_well(healthy: dict[str, Finding]) -> None:
    assert [name for name, finding in healthy.items() if not finding.ok] == ["history"]
    assert "drops an assistant's tool_calls" in healthy["history"].meaning
    assert "write(calls)" in healthy["history"].cure


def test_what_is_well_is_said_with_its_facts(healthy: dict[str, Finding]) -> None:
    assert "'lfm2', '<|tool_call_start|>'" in healthy["call_format"].meaning
    assert "8 decoder blocks of width 160" in healthy["blocks"].meaning
    assert "add_special_tokens=False" in healthy["prompt"].meaning
    assert healthy["habit"].meaning == "calls come in the format that was found: lfm2 100 % of 4 calls"
    assert healthy["triggers"].meaning.startswith("the bare model called a tool for 4 of 4 requests")
    assert healthy["own_calls"].meaning.startswith("all 4 calls that the model wrote can be read, and 4 fit")


def test_a_tokenizer_without_a_chat_template(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    finding = found(model, with_chat_template(tokenizer, ""), "chat_template")
    assert not finding.ok
    assert "has no chat template" in finding.meaning
    assert "instruct version" in finding.cure


def test_a_format_that_is_not_known(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    template = (
        "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}<do>{{ m.tool_calls[0].function.name }}</do>"
    )
    finding = found(model, with_chat_template(tokenizer, template + "{% endif %}{% endfor %}"), "call_format")
    assert not finding.ok
    assert "tool_call_format=..." in finding.cure


def test_a_template_that_ignores_tools(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    finding = found(
        model, with_chat_template(tokenizer, "{% for m in messages %}{{ m.content }}{% endfor %}"), "tools"
    )
    assert not finding.ok
    assert "ignores tools=: the model never sees 'calculator'" in finding.meaning


HERMES = (
    "{{ tools }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_markers_of_several_tokens_and_a_history_that_keeps_its_calls(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    other = with_chat_template(tokenizer, HERMES)
    markers = found(model, other, "markers")
    assert not markers.ok
    assert "'<tool_call>' and '</tool_call>' is not one token" in markers.meaning
    history = found(model, other, "history")
    assert history.ok
    assert history.meaning == "a call and its result come back from the rendered history"


def test_results_that_the_template_drops(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    template = HERMES.replace(
        "<|im_start|>{{ m.role }}\n{{ m.content }}", "{{ m.role != 'tool' and m.content or '' }}"
    )
    finding = found(model, with_chat_template(tokenizer, template), "history")
    assert not finding.ok
    assert "do not both reach the prompt" in finding.meaning


def test_two_bos_tokens(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    template = "{{ bos_token }}" + tokenizer.chat_template
    finding = found(model, with_chat_template(tokenizer, template), "prompt")
    assert not finding.ok
    assert "two BOS tokens" in finding.meaning


def test_an_open_reasoning_block_is_why_the_prompt_cannot_be_rendered(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    template = tokenizer.chat_template + "{% if add_generation_prompt %}<think>\n{% endif %}"
    finding = found(model, with_chat_template(tokenizer, template), "prompt")
    assert not finding.ok
    assert "could not be checked: ValueError: the prompt ends inside an open" in finding.meaning


def test_a_switch_for_thinking_is_named(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    template = tokenizer.chat_template + "{% if enable_thinking %}{% endif %}"
    assert "{'enable_thinking': False}" in found(model, with_chat_template(tokenizer, template), "prompt").meaning


@pytest.mark.parametrize(
    ("changes", "cure"),
    [({"pad_token": None}, "tokenizer.pad_token = "), ({"padding_side": "right"}, 'tokenizer.padding_side = "left"')],
)
def test_padding(tiny_lfm2: Any, changes: dict[str, Any], cure: str) -> None:
    model, tokenizer = tiny_lfm2
    other = copy.deepcopy(tokenizer)
    for name, value in changes.items():
        setattr(other, name, value)
    finding = found(model, other, "padding")
    assert not finding.ok
    assert cure in finding.cure


def test_an_attached_adapter(tiny_lfm2: Any) -> None:
    model = random_model()
    with fitted_adapter().attach(model):
        finding = found(model, tiny_lfm2[1], "unsteered")
    assert not finding.ok
    assert "remove()" in finding.cure


def test_a_compiled_model(tiny_lfm2: Any) -> None:
    finding = found(torch.compile(random_model(), backend="eager"), tiny_lfm2[1], "compiled")
    assert not finding.ok
    assert "attach first, then compile" in finding.cure
    inside = random_model()
    inside.model.layers[0].compile(backend="eager")
    assert "'model.layers.0'" in found(inside, tiny_lfm2[1], "compiled").meaning


def test_packed_attention_and_weights(tiny_lfm2: Any) -> None:
    model = random_model("llama")
    model.config._attn_implementation_internal = "paged|sdpa"
    assert "packs requests into one row" in found(model, tiny_lfm2[1], "attention").meaning
    model.config.quantization_config = {"bits": 4}
    finding = found(model, tiny_lfm2[1], "weights")
    assert not finding.ok
    assert "on these very weights" in finding.cure


def test_a_model_whose_blocks_are_not_found(tiny_lfm2: Any) -> None:
    class Flat(torch.nn.Module):
        config = SimpleNamespace(hidden_size=4, quantization_config=None, _attn_implementation=None)

    finding = found(Flat(), tiny_lfm2[1], "blocks")
    assert not finding.ok
    assert "layer_path" in finding.cure


class Scripted:
    """The tiny model, but its answers are written beforehand."""

    def __init__(self, model: Any, tokenizer: Any, text: str) -> None:
        self._model, self._answer = model, tokenizer.encode(text, add_special_tokens=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.cat([input_ids, torch.tensor([self._answer]).expand(len(input_ids), -1)], dim=1)


@pytest.mark.parametrize(
    ("answer", "name", "meaning"),
    [
        (
            "Oslo is fine.",
            "triggers",
            "called a tool for 0 of 3 requests that ask for one (its first answer begins 'Oslo",
        ),
        (
            "<|tool_call_start|>[calculator(exp<|tool_call_end|>",
            "own_calls",
            "3 of the model's 3 calls cannot be read",
        ),
        ("<think>Well", "thinking", "the answer begins with reasoning ('<think>')"),
    ],
)
def test_answers_that_show_a_problem(tiny_lfm2: Any, answer: str, name: str, meaning: str) -> None:
    model, tokenizer = tiny_lfm2
    finding = found(Scripted(model, tokenizer, answer), tokenizer, name)
    assert not finding.ok
    assert meaning in finding.meaning


def test_calls_in_another_format_than_the_templates_are_found_and_read(tiny_lfm2: Any) -> None:
    tokenizer = with_chat_template(tiny_lfm2[1], HERMES)
    model: Any = Scripted(tiny_lfm2[0], tokenizer, '{"name": "calculator", "arguments": {"expression": "1 + 1"}}')
    findings = {finding.name: finding for finding in diagnose(model, tokenizer, max_new_tokens=4)}
    assert findings["habit"].meaning == (
        "template and vocabulary show the format 'hermes', but the calls that the model writes come as json 100 % of "
        "3 calls: a parser for 'hermes' finds hardly any"
    )
    assert "ToolCallParser.from_model(model, tokenizer, rows)" in findings["habit"].cure
    doubts = readiness([one for one in findings.values() if one.ok or one.name == "habit"])
    assert doubts == "ready: an adapter can be fitted; look at habit before you serve the model"
    assert findings["triggers"].meaning.startswith(
        "the bare model called a tool for 3 of 3 requests that ask for one, and for 4 of 4 that need none"
    )
    assert findings["own_calls"].meaning.startswith("all 3 calls that the model wrote can be read, and 3 fit")


@pytest.mark.parametrize("width", [80, 60])
def test_the_table_fits_the_terminal(healthy: dict[str, Finding], width: int) -> None:
    lines = findings_table(list(healthy.values()), width).splitlines()
    assert max(map(len, lines)) <= width
    assert next(line for line in lines if line.startswith("!!")).split()[1] == "history"
    assert sum(line.startswith(("ok", "!!")) for line in lines) == len(NAMES)
    assert lines[-2:] == ["16 checks, 1 with something to look at", "ready, but look at history"]


def verdict(model: Any, tokenizer: Any, **named: Any) -> str:
    return readiness(diagnose(model, tokenizer, max_new_tokens=4, **named))


IGNORING = "{% for m in messages %}{{ m.content }}{% endfor %}"


def test_a_template_that_never_writes_tools_makes_a_model_not_ready(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    found = diagnose(model, with_chat_template(tokenizer, IGNORING), max_new_tokens=4)
    assert [finding.name for finding in found if finding.blocks] == ["tools"]
    said = readiness(found)
    assert said.startswith("not ready: the chat template ignores tools=: the model never sees 'calculator' and")
    assert "give a chat template that writes the tools: ASATrainingArguments(chat_template=...)" in said
    assert findings_table(found, 400).endswith(f"\n{said}")


def test_a_template_of_ones_own_is_examined_in_place_of_the_tokenizers(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    bare = with_chat_template(tokenizer, IGNORING)
    assert verdict(model, bare, chat_template=tokenizer.chat_template).startswith("ready, but look at history")


def test_a_format_that_is_named_is_the_one_that_is_read(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    found = {f.name: f for f in diagnose(model, tokenizer, max_new_tokens=24, tool_call_format="hermes")}
    assert found["call_format"].meaning.startswith("calls are written in the format 'hermes', '<tool_call>'")
    assert found["triggers"].meaning.startswith("the bare model called a tool for 0 of 3 requests")
    start = diagnose(model, tokenizer, max_new_tokens=4, tool_call_format="hermes", tool_call_start="<do>")
    assert "'<do>' and '</tool_call>'" in start[1].meaning


def test_what_could_not_be_checked_is_said_and_is_not_ok(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    found = diagnose(model, with_chat_template(tokenizer, ""), max_new_tokens=4)
    left = [finding.name for finding in found if not finding.checked]
    assert left == ["tools", "markers", "prompt", "history", "thinking", "habit", "triggers", "own_calls"]
    assert next(f for f in found if f.name == "tools").meaning == "not checked: it needs chat_template, mended"
    lines = findings_table(found, 90).splitlines()
    assert sum(line.startswith("--  ") for line in lines) == len(left)
    assert "16 checks, 1 with something to look at, 8 that could not be made" in lines
    assert readiness(found).startswith("not ready: the tokenizer ")


def test_checks_that_read_no_call_are_not_ok(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    found = {f.name: f for f in diagnose(Scripted(model, tokenizer, "Oslo is fine."), tokenizer, max_new_tokens=4)}
    for name, meaning in (("habit", "nothing tells in which"), ("own_calls", "whether its calls can be read is not")):
        assert (found[name].ok, found[name].checked) == (False, False)
        assert meaning in found[name].meaning
    assert readiness(list(found.values())) == "ready, but look at history, triggers; not known: habit, own_calls"


def test_nothing_to_look_at_is_ready() -> None:
    assert readiness([Finding("a", True, "well")]) == "ready: an adapter can be fitted"


def test_findings_are_json(healthy: dict[str, Finding]) -> None:
    assert json.loads(json.dumps([vars(finding) for finding in healthy.values()]))[0]["name"] == "chat_template"
