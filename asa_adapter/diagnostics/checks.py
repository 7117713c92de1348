"""The checks of `diagnose`: each looks at one thing and says what it means for steering, and what to do."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from asa_adapter.data.prompts import check_chat_template, encode_prompt, template_variables
from asa_adapter.diagnostics.patient import Finding, Patient
from asa_adapter.engine.protocol import is_engine_model
from asa_adapter.errors import IncompatibleModelError
from asa_adapter.matching.compatibility import FIT_HERE, QUANTISED
from asa_adapter.modeling.fingerprint import is_quantised
from asa_adapter.modeling.forward import compiled_parts
from asa_adapter.modeling.residual_stream import decoder_blocks, generating_model, hidden_size
from asa_adapter.notations.tool_call import ToolCall
from asa_adapter.notations.tool_schemas import Tools, properties, tool_schemas, unwrapped
from asa_adapter.steering.hook import is_steered
from asa_adapter.tool_calls.format_detection import SAMPLE_CALL, written_after, written_sample_call
from asa_adapter.tool_calls.parser import marker_token_id
from asa_adapter.tool_calls.reasoning_and_code import reasons_first

_BEGINNING_TOKENS = 16
# Where one of these fails, no adapter can be of use.
_NEEDED = {"chat_template", "call_format", "tools", "prompt", "blocks", "unsteered", "attention", "thinking"}

Check = Callable[[Patient], Finding]
_CHECK_NAMES: dict[Check, str] = {}


def check(name: str) -> Callable[[Check], Check]:
    """Names a check: its finding gets this name, and an exception in it becomes a finding too."""

    def named(look: Check) -> Check:
        @functools.wraps(look)
        def examine(patient: Patient) -> Finding:
            try:
                found = look(patient)
            # Model and tokenizer are a stranger's; whatever fails in them is what the user wants to know.
            except Exception as error:
                reason = f"{type(error).__name__}: {str(error)[:300]}"
                found = wrong(f"could not be checked: {reason}", "see the reason")
            return dataclasses.replace(found, name=name, blocks=not found.ok and name in _NEEDED)

        _CHECK_NAMES[examine] = name
        return examine

    return named


def ok(meaning: str) -> Finding:
    """The finding that nothing is wrong; `check` names it."""
    return Finding("", True, meaning)


def wrong(meaning: str, cure: str) -> Finding:
    """The finding that something is wrong, and what to do about it; `check` names it."""
    return Finding("", False, meaning, cure)


def unseen(meaning: str) -> Finding:
    """The finding that there was nothing to check; `check` names it."""
    return Finding("", False, meaning, checked=False)


def not_made(look: Check, failed: Sequence[Finding]) -> Finding:
    """The finding that a check was left out, since others failed before it."""
    why = " and ".join(finding.name for finding in failed)
    return Finding(_CHECK_NAMES[look], False, f"not checked: it needs {why}, mended", checked=False)


def unseen_tools(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Tools) -> str:
    """The first of the tools where a chat's prompt does not show them: neither by the template nor in its own words.

    Returns:
        Its name; "" where the prompt shows the tools.
    """
    schemas = tool_schemas(tools)
    name = str(unwrapped(schemas[0]).get("name"))
    ids = encode_prompt(tokenizer, messages, schemas)
    same = ids == encode_prompt(tokenizer, messages, None)
    return name if same and name not in str(tokenizer.decode(ids, skip_special_tokens=False)) else ""


def template_ignores(name: str) -> tuple[str, str]:
    """What it means that a chat template ignores tools such as this one, and the cure."""
    return (
        f"the chat template ignores tools=: the model never sees {name!r} and the others, so it cannot call them",
        "give a chat template that writes the tools: ASATrainingArguments(chat_template=...), --chat-template FILE",
    )


def answers_reason(marker: str) -> tuple[str, str]:
    """What it means that answers begin with this marker of reasoning, and the cure."""
    return (
        f"the answer begins with reasoning ({marker!r}): the call is decided behind it, not at the last prompt token, "
        "where an adapter reads and steers",
        "switch thinking off, by the model's own switch or a chat template that closes the block",
    )


@check("chat_template")
def check_template(patient: Patient) -> Finding:
    """Is there a chat template?"""
    try:
        check_chat_template(patient.tokenizer)
    except ValueError as error:
        cure = "use the instruct version of the model, or set tokenizer.chat_template"
        return wrong(str(error).split("; ")[0], cure)
    return ok("the tokenizer has a chat template")


@check("call_format")
def check_call_format(patient: Patient) -> Finding:
    """Is the tool-call format known?"""
    try:
        parser = patient.parser
    except ValueError:
        return wrong(
            "neither chat template nor vocabulary shows a known tool-call format: no call would be noticed",
            "name it: ASATrainingArguments(tool_call_format=..., tool_call_start=..., tool_call_end=...), or "
            "--tool-call-format F",
        )
    markers = " and ".join(repr(marker) for marker in (parser.start, parser.end) if marker)
    return ok(f"calls are written in the format {parser.format!r}, {markers or 'without markers'}")


@check("tools")
def check_tools(patient: Patient) -> Finding:
    """Does the template write the tools into the prompt?"""
    if name := unseen_tools(patient.tokenizer, [{"role": "user", "content": "Hello."}], patient.tools):
        return wrong(*template_ignores(name))
    return ok("the chat template writes the tools into the prompt")


@check("markers")
def check_markers(patient: Patient) -> Finding:
    """Are the markers single tokens?"""
    parser = patient.parser
    named = [marker for marker in (parser.start, parser.end) if marker]
    if not named:
        return ok("calls have no markers: they are told by the text")
    several = [marker for marker in named if marker_token_id(patient.tokenizer, marker) is None]
    if not several:
        return ok("the markers are single tokens: a call is told by the token")
    return wrong(
        f"{' and '.join(map(repr, several))} is not one token: calls are told by the text, and the screen of settings "
        "sees a call's first token only, which prose may share",
        "raise ASATrainingArguments.finalists, so that more settings are decided by whole answers",
    )


@check("prompt")
def check_prompt(patient: Patient) -> Finding:
    """Does the prompt end where the answer begins, with one BOS?"""
    ids = encode_prompt(patient.tokenizer, [{"role": "user", "content": "Hello."}], patient.tools, patient.parser)
    bos = getattr(patient.tokenizer, "bos_token_id", None)
    if bos is not None and ids[:2] == [bos, bos]:
        return wrong("the prompt begins with two BOS tokens", "take bos_token out of the chat template")
    again = patient.tokenizer(patient.text(ids))["input_ids"]
    meaning = "the prompt has at most one BOS and ends where the answer begins"
    if variables := template_variables(patient.tokenizer):
        meaning += f"; it is rendered with {variables}: do so in your own code too"
    if bos is not None and list(again[:2]) == [bos, bos]:
        meaning += "; rendered to text and tokenised again it would get a second BOS: pass add_special_tokens=False"
    return ok(meaning)


@check("history")
def check_history(patient: Patient) -> Finding:
    """Is a call in the history rendered, and can it be read back?"""
    tool = unwrapped(patient.tools[0])
    call = ToolCall(str(tool.get("name")), {name: "probe 1" for name in list(properties(tool))[:1]})
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "tool_calls": [{"name": call.name, "arguments": call.arguments}]},
        {"role": "tool", "content": "result 2"},
    ]
    before, after = (
        patient.text(encode_prompt(patient.tokenizer, turns, patient.tools, patient.parser))
        for turns in (chat[:1], chat)
    )
    written = written_after(before, after)
    if call.name not in written or "result 2" not in written:
        return wrong(
            "a call and its result do not both reach the prompt: the model cannot see what it did",
            "write calls and results into the turns' content yourself",
        )
    if call not in patient.parser.parse(written, patient.tools):
        return wrong(
            "the call in the history cannot be read back: the template writes it in another format than the parser's",
            "set ASATrainingArguments.tool_call_format to the one that the template writes",
        )
    if SAMPLE_CALL.name not in written_sample_call(patient.tokenizer):
        return wrong(
            "the chat template drops an assistant's tool_calls. Here they are written into the turn's content and "
            "come back; prompts of your own code lose them, and the model forgets what it called",
            "in your own code put ToolCallParser.from_tokenizer(tokenizer).write(calls) into content",
        )
    return ok("a call and its result come back from the rendered history")


@check("padding")
def check_padding(patient: Patient) -> Finding:
    """Are batches padded on the left?"""
    side = getattr(patient.tokenizer, "padding_side", None)
    if patient.tokenizer.pad_token_id is None:
        return wrong(
            "the tokenizer has no padding token: batches in your own code would fail",
            "set tokenizer.pad_token = tokenizer.eos_token",
        )
    if side != "left":
        return wrong(
            f"the tokenizer pads on the {side}: a batch's answers would begin behind padding. Steering still finds "
            "the last prompt token by the attention mask",
            'set tokenizer.padding_side = "left"',
        )
    return ok("prompts of a batch are padded on the left")


@check("blocks")
def check_blocks(patient: Patient) -> Finding:
    """Can the decoder blocks be found?"""
    try:
        model = generating_model(patient.model)
        facts = model.facts if is_engine_model(model) else None
        depth, width = (
            (facts.num_layers, facts.hidden_size) if facts else (len(decoder_blocks(model)), hidden_size(model))
        )
    except IncompatibleModelError as error:
        return wrong(str(error), "name the block list: ASATrainingArguments(layer_path=...)")
    return ok(f"{depth} decoder blocks of width {width} can be read and steered")


@check("unsteered")
def check_unsteered(patient: Patient) -> Finding:
    """Is the model bare?"""
    if is_steered(patient.model):
        meaning = "an adapter is attached: what is seen here is the steered model"
        return wrong(meaning, "call remove() on its handle, and diagnose again")
    return ok("no adapter is attached")


@check("compiled")
def check_compiled(patient: Patient) -> Finding:
    """Is the model compiled?"""
    if parts := compiled_parts(patient.model):
        return wrong(
            f"torch.compile was applied to {parts[0]!r}: a graph that was made before attach() ignores the adapter",
            "attach first, then compile, or call torch._dynamo.reset() after attaching",
        )
    return ok("the model is not compiled")


@check("attention")
def check_attention(patient: Patient) -> Finding:
    """Is each prompt a row of its own, or are requests packed?"""
    if is_engine_model(patient.model):
        return ok("each prompt is a sequence of its own")
    kind = str(getattr(patient.model.config, "_attn_implementation", None) or "eager")
    if kind.startswith("paged"):
        return wrong(
            f"the attention is {kind!r}, which packs requests into one row: such calls are not steered",
            'load the model with attn_implementation="sdpa" and use generate()',
        )
    return ok(f"each prompt is a row of its own (attention {kind!r})")


@check("weights")
def check_weights(patient: Patient) -> Finding:
    """Are the weights plain, or packed by quantisation?"""
    if is_engine_model(patient.model):
        kind = patient.model.facts.quantised
        return wrong(QUANTISED.replace("packed", kind), FIT_HERE) if kind else ok("the weights are plain numbers")
    if is_quantised(model := generating_model(patient.model), decoder_blocks(model)):
        return wrong(QUANTISED, FIT_HERE)
    first = next(patient.model.parameters(), torch.empty(0))
    return ok(f"the weights are plain {str(first.dtype).removeprefix('torch.')}")


@check("thinking")
def check_thinking(patient: Patient) -> Finding:
    """Do answers begin with reasoning?"""
    for answer in patient.answers:
        if opened := reasons_first(patient.text(answer)):
            return wrong(*answers_reason(opened))
    return ok("answers begin without reasoning: the last prompt token decides on the call")


@check("habit")
def check_habit(patient: Patient) -> Finding:
    """Do calls come in the format that the template shows?"""
    habit, shown = patient.habit, patient.parser.format
    if not habit.calls:
        told = habit.unknown_format() or "nothing tells in which its calls come"
        return unseen(f"the bare model wrote no call in any known format: {told}")
    if habit.differs:
        return wrong(
            f"template and vocabulary show the format {shown!r}, but the calls that the model writes come as {habit}: "
            f"a parser for {shown!r} finds hardly any",
            "a training needs none: it finds the format by itself, as adapter.parser(tokenizer) does later. Where a "
            "server reads the calls, give it the parser for that format; your own code reads them by "
            "ToolCallParser.from_model(model, tokenizer, rows), rows being some labelled prompts",
        )
    return ok(f"calls come in the format that was found: {habit}")


@check("triggers")
def check_triggers(patient: Patient) -> Finding:
    """Does the bare model ever call a tool, and also where none is needed?"""
    asked, talk = patient.answers, patient.answers_to_small_talk
    called, needless = (sum(patient.reader.triggered(one, patient.tools) for one in some) for some in (asked, talk))
    count = f"the bare model called a tool for {called} of {len(asked)} requests that ask for one"
    if called:
        count += f", and for {needless} of {len(talk)} that need none, such as thanks"
        return ok(f"{count}: it knows the format, and steering can change how often")
    beginning = patient.text(patient.answers[0][:_BEGINNING_TOKENS])
    return wrong(
        f"{count} (its first answer begins {beginning!r}): steering moves a decision that the model knows, it teaches "
        "no format",
        "check that this model was trained for tools, that its own chat template is used, and the format above; a "
        "lazy model may still be helped: fit an adapter and look at its VALID numbers",
    )


@check("own_calls")
def check_own_calls(patient: Patient) -> Finding:
    """Can the parser read the model's own calls?"""
    reader = patient.reader
    called = [reader.text(answer) for answer in patient.answers if reader.triggered(answer, patient.tools)]
    if not called:
        return unseen("the bare model wrote no call: whether its calls can be read is not known")
    results = [reader.check(text, patient.tools) for text in called]
    fits = f"{sum(result['arguments'] for result in results)} fit the tools"
    unread = [text for text, result in zip(called, results, strict=True) if not result["format"]]
    if unread:
        return wrong(
            f"{len(unread)} of the model's {len(called)} calls cannot be read ({fits}), such as {unread[0]!r:.160}",
            "if it looks whole, the format is another: set tool_call_format; if it is cut, raise max_new_tokens",
        )
    return ok(f"all {len(called)} calls that the model wrote can be read, and {fits}")


# The first two need nothing; those on prompts need these two; those on answers need a prompt that can be rendered.
ON_THE_TOKENIZER = (check_template, check_call_format)
ON_PROMPTS = (check_tools, check_markers, check_prompt, check_history)
ON_THE_MODEL = (check_padding, check_blocks, check_unsteered, check_compiled, check_attention, check_weights)
ON_ANSWERS = (check_thinking, check_habit, check_triggers, check_own_calls)
