"""The names of what can be wrong with a server, what each means, what cures it, and whether an adapter would."""

from typing import NamedTuple


class Known(NamedTuple):
    """A fault by its name.

    Attributes:
        meaning: what it means.
        cure: what to do.
        adapter: whether an adapter would cure it, and why.
    """

    meaning: str
    cure: str
    adapter: str


_DECIDES = "yes: whether to call is what an adapter decides; fit one, and measure it on prompts of yours"
_PARSER = (
    "switch on the server's parser for the model's format: vllm serve --enable-auto-tool-choice --tool-call-parser P, "
    "llama-server --jinja; in LM Studio and Ollama take a build of the model that has the tools in its chat template"
)
FAULTS = {
    "refuses_tools": Known(
        "requests with tools are refused",
        "take a model, or a chat template, that knows tools; " + _PARSER,
        "no: an adapter never sees the request",
    ),
    "tools_not_in_prompt": Known(
        "the tools never reach the prompt: it has as many tokens with them as without",
        "give the server a chat template that writes the tools (vllm serve --chat-template, llama-server --jinja "
        "--chat-template-file)",
        "no: the model cannot call what it does not see",
    ),
    "call_left_as_text": Known(
        "calls stay in the answer's text, markers and all, and tool_calls is empty", _PARSER, "no: the model does call"
    ),
    "bare_json": Known(
        "calls come as JSON in the answer's text, and tool_calls is empty",
        _PARSER + "; for a model that loses its markers take a parser of bare JSON (llama3_json), or another model",
        "no: an adapter decides whether the model calls, not in which form",
    ),
    "malformed_arguments": Known(
        "arguments of calls are no JSON, or do not fit the tool's schema",
        "let the server write calls by a grammar (tool_choice required or strict tools), or take a larger model",
        "no: an adapter decides whether the model calls, not what it writes",
    ),
    "calls_on_hello": Known("it calls tools where nobody needs one", "say in the system turn when to call", _DECIDES),
    "answers_instead_of_calling": Known(
        "it answers by itself what it cannot know", "say in the system turn that it must not guess", _DECIDES
    ),
    "announces_and_stops": Known(
        "it says that it will use a tool, and ends its turn",
        "say in the system turn to call at once, without words before it",
        "yes: the push towards a call acts on the first token of the answer, where the announcement begins",
    ),
    "repeats_a_call": Known(
        "behind a tool's result it makes the same call again",
        "see that the chat template writes results (turns of the role tool) and their calls",
        "no: an adapter decides at the last turn of the user, not behind a result, unless it was fitted on such turns",
    ),
    "stops_after_the_first_call": Known(
        "of two calls that a question needs it makes one, and answers",
        "say in the system turn to go on until all is known",
        "only one that was fitted on conversations with results",
    ),
    "too_many_tools": Known(
        "with 44 tools it does not make the calls that it makes with four",
        "offer fewer tools at once, chosen by what was asked",
        "no: it was fitted with some tools, and others make another prompt of it",
    ),
}


class Fault(NamedTuple):
    """A fault that was found.

    Attributes:
        name: its name in `FAULTS`.
        meaning: what it means.
        evidence: what the server was asked and did; its texts are cleaned.
        cure: what to do.
        adapter: whether an adapter would cure it, and why.
    """

    name: str
    meaning: str
    evidence: str
    cure: str
    adapter: str


def found_fault(name: str, evidence: str) -> Fault:
    """The fault of a name, with its evidence."""
    known = FAULTS[name]
    return Fault(name, known.meaning, evidence, known.cure, known.adapter)
