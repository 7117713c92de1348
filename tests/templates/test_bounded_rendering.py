"""Chat templates of adapters: rendered as transformers does, within bounds, and from the Hub only if trusted."""

import copy
import os
from collections.abc import Iterator
from typing import Any

import jinja2
import pytest
import transformers
from checkout import TINY_LFM2

from asa_adapter.data.prompts import encode_prompt, with_chat_template
from asa_adapter.templates import bounded_rendering
from asa_adapter.templates.bounded_rendering import refuse_template_from_hub, with_bounded_template

CHAT = [{"role": "user", "content": "What is 2 x 3?\n<b>"}, {"role": "assistant", "content": "6"}]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "Ä \u2028", "parameters": {}}}]
FAIR = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}\n{% endfor %}"
    "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(TINY_LFM2)


@pytest.fixture(scope="module", autouse=True)
def short_bounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_rendering, "SECONDS", 1)
        patch.setattr(bounded_rendering, "_shared", [])
        yield
        for process in bounded_rendering._shared:
            process.end()


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_a_fair_template_renders_as_transformers_renders_it(tokenizer: Any, tools: Any) -> None:
    ours, plain = with_bounded_template(tokenizer, FAIR), with_chat_template(tokenizer, FAIR)
    for how in ({"tokenize": False}, {"tokenize": True, "add_generation_prompt": True}):
        assert ours.apply_chat_template(CHAT, tools=tools, **how) == plain.apply_chat_template(
            CHAT, tools=tools, **how
        )
    assert encode_prompt(ours, CHAT, tools) == encode_prompt(plain, CHAT, tools)


def test_the_models_own_template_renders_alike(tokenizer: Any) -> None:
    ours = with_bounded_template(tokenizer, tokenizer.chat_template)
    assert encode_prompt(ours, CHAT, TOOLS) == encode_prompt(tokenizer, CHAT, TOOLS)
    assert "apply_chat_template" not in vars(tokenizer)


def test_without_a_template_the_tokenizer_stays_as_it_is(tokenizer: Any) -> None:
    assert with_bounded_template(tokenizer, None) is tokenizer


def test_a_copy_renders_too(tokenizer: Any) -> None:
    ours = with_bounded_template(tokenizer, FAIR)
    assert encode_prompt(copy.deepcopy(ours), CHAT) == encode_prompt(ours, CHAT)


TIME = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}"
OVER = {
    "loops": (TIME, "it takes more than 1 seconds"),
    "a power": ("{{ 7 ** (7 ** 12) }}", "takes more than"),
    "a product": ("{{ 'a' * 10 ** 10 }}", "MiB of memory"),
    "a width": ("{{ 'a' | center(10 ** 10) }}", "MiB of memory"),
    "a format": ("{{ '%9999999999d' % 1 }}", "MiB of memory"),
    "doubling": (
        "{% set n = namespace(t='a') %}{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
        "MiB of memory",
    ),
    "a long text": ("{{ 'a' * 2 ** 21 }}", "it writes more than 1048576 characters"),
}


@pytest.mark.parametrize(("template", "message"), OVER.values(), ids=list(OVER))
def test_a_template_over_a_bound_is_ended_and_not_tried_again(
    tokenizer: Any, template: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = with_bounded_template(tokenizer, template)
    with pytest.raises(ValueError, match=f"^the adapter's chat template is not used: .*{message}"):
        encode_prompt(bounded, CHAT)
    monkeypatch.delattr(bounded_rendering, "_rendered_in_process")
    with pytest.raises(ValueError, match="is not used"):
        encode_prompt(bounded, CHAT)


def test_after_a_template_that_was_ended_another_is_rendered(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="is not used"):
        encode_prompt(with_bounded_template(tokenizer, TIME), CHAT)
    assert encode_prompt(with_bounded_template(tokenizer, FAIR), CHAT)


def test_an_answer_that_nobody_waited_for_is_not_given_to_another_chat(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (with_bounded_template(tokenizer, f"{word} {{{{ messages[0].content }}}}") for word in "ab")
    assert first.apply_chat_template(CHAT[:1], tokenize=False).startswith("a ")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bounded_rendering._RenderingProcess, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            first.apply_chat_template(CHAT[:1], tokenize=False)
    assert second.apply_chat_template(CHAT[:1], tokenize=False).startswith("b ")


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no\x1b[31m') }}", "{{ ''.__class__.__mro__ }}{{ x.y.z }}", "{% for %}"]
)
def test_a_template_that_fails_says_so(tokenizer: Any, template: str) -> None:
    bounded = with_bounded_template(tokenizer, template)
    with pytest.raises(jinja2.TemplateError) as caught:
        bounded.apply_chat_template(CHAT, tokenize=False)
    assert str(caught.value).isprintable()
    with pytest.raises(ValueError, match="the tokenizer's chat template cannot render this chat: "):
        encode_prompt(bounded, CHAT)


def test_a_template_sees_nothing_of_this_process(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jinja's sandbox refuses what leads to Python's objects, and there is no global but transformers' own."""
    monkeypatch.setenv("SECRET", "x")
    for reach in ("self.__init__.__globals__", "cycler.__init__.__globals__.os.environ", "messages.__class__"):
        with pytest.raises(jinja2.TemplateError):
            with_bounded_template(tokenizer, f"{{{{ {reach}.a.b }}}}").apply_chat_template(CHAT, tokenize=False)
    assert os.environ["SECRET"] == "x"


@pytest.mark.parametrize(
    ("template", "commit", "trusted"),
    [(None, "0" * 40, False), (FAIR, None, False), (FAIR, "0" * 40, True)],
    ids=["no template", "a folder", "trusted"],
)
def test_other_templates_are_not_refused(template: str | None, commit: str | None, trusted: bool) -> None:
    refuse_template_from_hub(template, commit, trusted)


def test_a_template_from_the_hub_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a chat template is a program: .* trust_template=True, or --trust-template"):
        refuse_template_from_hub(FAIR, "0" * 40, trusted=False)
