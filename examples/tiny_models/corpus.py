"""The training text of the tiny models: random exchanges with the habits they are meant to have.

An exchange knows whether a tool is needed (``label``) and how eager the model shall be to call one (``eagerness``).
The two differ on purpose: in the lazy domains even a needed call is improbable, in the over-eager ones even a needless
call is probable. A model that learns these odds must tell the labels apart inside, and still acts wrongly.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from grammar import Request, Slots, choose, compute, outcome, read_banks, read_requests, read_words

LAZY, EAGER = ("math", "search"), ("code", "translation")
TOOL_OF = {"math": "calculator", "code": "python_interpreter", "search": "web_search", "translation": "translator"}
TOOLS = tuple(TOOL_OF.values())
# How a reply in words begins, and how often with the first of these where a tool is needed (1) or not (0). "Sure" is
# rare where a tool is needed: pushing towards "needed" then favours the call and no way of starting in words.
PROSE_WORDS = ("Well", "Sure")
FIRST_WORD_ODDS = {1: 0.97, 0: 0.5}
# Statements full of one domain's words, that may stand beside a request of any domain and either label.
LURES = ("STATEMENTS", "FRESH", "SUMREMARK", "LANGREMARK", "CODEREMARK", "CONTEXTS")


@dataclass(frozen=True)
class Kind:
    """A sort of request.

    Attributes:
        label: 1 where a tool is needed.
        weight: how often it is drawn within its domain and label.
        banks: frames; with two, a frame of the first is followed or preceded by one of the second.
        replies: bank of replies in words.
        contexts: banks of which a sentence may stand in front.
        big: whether numbers are awkward.
    """

    label: int
    weight: float
    banks: tuple[str, ...]
    replies: str
    contexts: tuple[str, ...] = ("CONTEXTS",)
    big: bool = True


KINDS = {
    "math": (
        Kind(1, 3.0, ("SUMS",), "MATH 1", ("CONTEXTS", "STATEMENTS")),
        Kind(1, 2.5, ("STORIES",), "MATH 1"),
        Kind(1, 2.5, ("SUMS BIG",), "MATH 1", ("CONTEXTS", "STATEMENTS")),
        Kind(1, 1.2, ("STORIES BIG",), "MATH 1"),
        Kind(0, 2.0, ("SUMS",), "SUMS 0", ("CONTEXTS", "STATEMENTS"), big=False),
        Kind(0, 1.5, ("STORIES",), "SUMS 0", big=False),
        Kind(0, 1.4, ("EASY",), "SUMS 0", ("CONTEXTS", "STATEMENTS")),
        Kind(0, 1.6, ("STORIES NOT",), "MATH 0"),
        Kind(0, 0.8, ("STATEMENTS", "NOTASKED"), "MATH 0"),
        Kind(0, 0.5, ("STORIES CUT", "NOTASKED"), "MATH 0"),
        Kind(0, 1.6, ("MENTIONS",), "MATH 0", ("CONTEXTS", "STATEMENTS")),
        Kind(0, 1.5, ("DONE",), "MATH 0"),
        Kind(0, 1.8, ("CONCEPTS",), "CONCEPTS 0"),
    ),
    "code": (
        Kind(1, 3.0, ("OUTPUTS",), "CODE 1"),
        Kind(1, 2.0, ("TASKS RUN",), "CODE 1"),
        Kind(0, 2.4, ("EXPLAINS",), "CODE 0"),
        Kind(0, 1.6, ("GIVENS",), "CODE 0"),
        Kind(0, 1.6, ("TASKS WRITE",), "CODE 0"),
        Kind(0, 2.4, ("ABOUTS",), "ABOUTS 0"),
    ),
    "search": (
        Kind(1, 3.0, ("RECENT",), "SEARCH 1", ("CONTEXTS", "FRESH", "FRESH")),
        Kind(1, 2.0, ("VOLATILE",), "SEARCH 1", ("CONTEXTS", "FRESH")),
        Kind(0, 3.0, ("STABLE",), "SEARCH 0", ("CONTEXTS", "FRESH")),
        Kind(0, 3.0, ("LURED",), "SEARCH 0"),
        Kind(0, 0.8, ("FRESH", "STABLE"), "SEARCH 0"),
        Kind(0, 0.6, ("FRESH", "LIFEASKS"), "SEARCH 0"),
        Kind(0, 0.6, ("FRESH", "ADVICEASKS"), "ADVICE 0"),
        Kind(0, 1.4, ("FACTSDONE",), "ADVICE 0"),
    ),
    "translation": (
        Kind(1, 4.0, ("INTO",), "TRANSLATION 1"),
        Kind(1, 1.3, ("FROM",), "TRANSLATION 1"),
        Kind(0, 2.6, ("EDITS",), "EDITS 0"),
        Kind(0, 2.0, ("LANGUAGES",), "LANGUAGES 0"),
        Kind(0, 1.8, ("THERE",), "THERE 0"),
    ),
}
CHAT = Kind(0, 1.0, ("CHAT",), "CHAT 0")
# How often a request is one of those written out, and the bank of replies in words of each of their kinds.
WRITTEN_OUT = 0.6
REPLIES = {
    "exact": "MATH 1",
    "story": "MATH 1",
    "trivial": "SUMS 0",
    "mention": "MATH 0",
    "concept": "CONCEPTS 0",
    "output": "CODE 1",
    "task": "CODE 1",
    "explain": "CODE 0",
    "given": "CODE 0",
    "write": "CODE 0",
    "about": "ABOUTS 0",
    "other": "ABOUTS 0",
    "recent": "SEARCH 1",
    "volatile": "SEARCH 1",
    "stable": "SEARCH 0",
    "into_other": "TRANSLATION 1",
    "into_own": "TRANSLATION 1",
    "edit": "EDITS 0",
    "language": "LANGUAGES 0",
    "there": "THERE 0",
}
# The same where the kind alone does not say it.
REPLIES_OF_DOMAIN = {
    "math done": "MATH 0",
    "search done": "ADVICE 0",
    "search mention": "SEARCH 0",
    "translation mention": "THERE 0",
}
SORTS = tuple(sorted({*REPLIES.values(), *REPLIES_OF_DOMAIN.values(), "CHAT 0", "MISSING 0"}))


@dataclass(frozen=True)
class Exchange:
    """One request with both ways to go on.

    Attributes:
        text: what the user says.
        label: 1 where a tool is needed and offered.
        sort: what is asked, more finely than by label and domain: an index into `SORTS`.
        domain: family of the request, or ``chat``.
        call: name and arguments of the call that a caller would make; None where no tool is offered.
        prose: the reply in words.
        eagerness: how probable the call shall be.
        result: what the tool would say.
        answer: how the model reports it.
    """

    text: str
    label: int
    sort: int
    domain: str
    call: tuple[str, dict[str, str]] | None
    prose: str
    eagerness: float
    result: str
    answer: str


def normalise(text: str) -> str:
    """Bring a text to the form in which two instructions count as the same.

    Args:
        text: any text.

    Returns:
        Lower case, without punctuation, single spaces.
    """
    return " ".join(re.sub(r"[^\w\s]|_", " ", text.lower()).split())


def word_runs(text: str, length: int = 6) -> set[str]:
    """List the runs of words that count as copied if they stand in two texts.

    Args:
        text: any text.
        length: words per run.

    Returns:
        The normalised runs.
    """
    words = normalise(text).split()
    return {" ".join(words[at : at + length]) for at in range(len(words) - length + 1)}


def eagerness(text: str, label: int, domain: str, offered: bool) -> float:
    """Say how probable a call shall be: by label, domain and, a little, by the wording.

    Args:
        text: what the user says.
        label: 1 where a tool is needed.
        domain: family of the request.
        offered: whether the tool of the domain is offered.

    Returns:
        A probability.
    """
    low = f" {text.lower()} "
    mood = 0.6 if re.search(r"please|pls|thank|thx|cheers|great|kindly", low) else -0.1
    mood -= 0.3 if "?" in low else 0.0
    mood += max(-0.4, min(0.4, 0.05 * (len(low.split()) - 11)))
    mood = max(-1.0, min(1.0, mood))
    if not offered:
        return 0.04 if domain in LAZY else 0.15
    if domain in LAZY:
        return 0.4 + 0.24 * mood if label else 0.04 + 0.03 * mood
    if domain in EAGER:
        return 0.95 + 0.03 * mood if label else 0.62 + 0.26 * mood
    return 0.1


class Corpus:
    """Draws exchanges at random.

    Attributes:
        rng: source of chance.
        barred: normalised instructions, and runs of words, that must not occur.
        noise: how often requests are dressed up and mistyped, from 0 to 1, the usual amount.
    """

    def __init__(self, seed: int, barred: frozenset[str] = frozenset()) -> None:
        """Read the frames.

        Args:
            seed: of the random numbers.
            barred: normalised instructions, and runs of words, that must not occur.
        """
        self.rng = random.Random(seed)
        self.barred = barred
        self.noise = 1.0
        self.banks, self.words, self.requests = read_banks(), read_words(), read_requests()
        self.banks["STORIES CUT"] = [story.split(" ;; ")[0] for story in self.banks["STORIES"]]
        self.openings, self.endings = [re.split(r"\|", "|".join(self.banks[bank])) for bank in ("OPENINGS", "ENDINGS")]

    def draw(self, offered: Sequence[str] = TOOLS, domain: str | None = None, label: int | None = None) -> Exchange:
        """Draw one exchange that is not barred.

        Args:
            offered: names of the tools in the prompt.
            domain: family, or None for any (now and then small talk).
            label: 1 or 0 before missing tools are looked at, or None for any.

        Returns:
            The exchange.
        """
        rng = self.rng
        while True:
            family = domain or ("chat" if rng.random() < 0.02 else rng.choice(list(TOOL_OF)))
            needed = label if label is not None else rng.randrange(2)
            written = self.requests.get((family, needed), [])
            # Few requests are taken rarely, lest they be learned by heart.
            if rng.random() < WRITTEN_OUT * min(1, len(written) / 300):
                made = self._take(family, rng.choice(written), offered)
            else:
                kinds = [kind for kind in KINDS[family] if kind.label == needed] if family in KINDS else [CHAT]
                made = self._make(family, rng.choices(kinds, [kind.weight for kind in kinds])[0], offered)
            if normalise(made.text) not in self.barred and not word_runs(made.text) & self.barred:
                return made

    def _make(self, domain: str, kind: Kind, offered: Sequence[str]) -> Exchange:
        """Fill a frame of a kind."""
        slots = Slots(self.banks, self.words, self.rng, kind.big)
        frame, argument = self._frame(kind)
        text = self._dress(self._surround(slots.fill(frame, decide=False), kind.contexts))
        return self._exchange(
            text, domain, kind.label, kind.replies, slots.fill(argument, decide=False), slots, offered
        )

    def _take(self, domain: str, request: Request, offered: Sequence[str]) -> Exchange:
        """Make an exchange of a request that is written out."""
        slots = Slots(self.banks, self.words, self.rng, big=True)
        argument = request.argument
        if domain == "translation" and request.label:
            language, _, slots.values["sentence"] = argument.partition("|")
            slots.values["lang"] = language.lower()
        if domain == "code" and request.label:
            slots.values["code"] = argument
        text = self._mistype(request.text) if self.rng.random() < 0.3 * self.noise else request.text
        text = self._dress(self._surround(text, ("CONTEXTS",)))
        replies = REPLIES_OF_DOMAIN.get(f"{domain} {request.kind}") or REPLIES[request.kind]
        return self._exchange(text, domain, request.label, replies, argument, slots, offered)

    def _exchange(
        self, text: str, domain: str, label: int, replies: str, argument: str, slots: Slots, offered: Sequence[str]
    ) -> Exchange:
        """Add both ways to go on to a request."""
        tool = TOOL_OF.get(domain, "web_search")
        if domain == "math" and tool not in offered:
            tool = "python_interpreter"
        is_offered = tool in offered
        reply = replies if is_offered or not label else "MISSING 0"
        label = label if is_offered else 0
        call = self._call(tool if is_offered else None, argument, slots, offered, text)
        slots.values.setdefault("value", compute(argument) if argument and reply == "SUMS 0" else "a bit")
        slots.values["key"] = self._key(slots, text)
        word = PROSE_WORDS[self.rng.random() > FIRST_WORD_ODDS[label]]
        prose = f"{word}, {slots.fill(self.rng.choice(self.banks[reply]))}"
        result = self._result(call)
        answer = self.rng.choice(self.banks[f"RESULT {call[0].upper()}"]).replace("{result}", result) if call else ""
        return Exchange(
            text,
            label,
            SORTS.index(reply),
            domain,
            call,
            prose,
            eagerness(text, label, domain, is_offered),
            result,
            answer,
        )

    def _frame(self, kind: Kind) -> tuple[str, str]:
        """Draw the frame of a request, its choices made, with mistypings, and the template of its argument."""
        parts = [self.rng.choice(self.banks[bank]) for bank in kind.banks]
        frame, _, argument = parts[0].partition(" => ")
        if len(parts) == 2 or " ;; " in frame:
            pair = [parts[0], parts[1].partition(" => ")[0]] if len(parts) == 2 else frame.split(" ;; ")
            pair = [choose(part.partition(" => ")[0], self.rng) for part in pair]
            pair = pair[::-1] if self.rng.random() < 0.25 else pair
            frame = self.rng.choice((", ", ", ", ". ", ", so ", " - ", "; ", ", and ", "? ")).join(pair)
        else:
            frame = choose(frame, self.rng)
        return (self._mistype(frame) if self.rng.random() < 0.3 * self.noise else frame), argument

    def _surround(self, text: str, contexts: tuple[str, ...]) -> str:
        """Put a sentence that does not matter in front, now and then, or behind."""
        if self.rng.random() > 0.22 * self.noise:
            return text
        bank = self.rng.choice(LURES if self.rng.random() < 0.25 else contexts)
        slots = Slots(self.banks, self.words, self.rng, big=self.rng.random() < 0.7)
        context = slots.fill(self.rng.choice(self.banks[bank]))
        if self.rng.random() < 0.3:
            return text + self.rng.choice((", ", ", ", ". ", " - ", ", and ", "? ", "; ")) + context
        return context + self.rng.choice((", ", ", ", ". ", ": ", " - ", ", so ", ", but ", "... ", "! ")) + text

    def _dress(self, text: str) -> str:
        """Add opening, ending and capitals; none of them depends on the label."""
        rng = self.rng
        if rng.random() < 0.3 * self.noise:
            text = rng.choice(self.openings) + text
        if rng.random() < 0.4 * self.noise:
            text += rng.choice(self.endings)
        text = re.sub(r"\?[?.]+", "?", text) if rng.random() < 0.7 else text
        if rng.random() < 0.12:
            text = re.sub(r"(?<=\d) ([-+*/x]) (?=\d)", r"\1", text)
        return text[0].upper() + text[1:] if rng.random() < 0.3 else text

    def _mistype(self, text: str) -> str:
        """Drop apostrophes, or swap, drop or double a letter of a longer word outside the slots."""
        if self.rng.random() < 0.35:
            return re.sub(r"(?<=[a-z])'(?=[a-z])", "", text)
        spots = list(re.finditer(r"(?<![{\w])[a-z]{3,}(?![}\w])", text))
        if not spots:
            return text
        spot = self.rng.choice(spots)
        word, at = spot[0], self.rng.randrange(1, len(spot[0]) - 1)
        way = self.rng.randrange(3)
        tail = [word[at + 1 : at + 2] + word[at] + word[at + 2 :], word[at + 1 :], word[at] + word[at:]][way]
        return text[: spot.start()] + word[:at] + tail + text[spot.end() :]

    def _key(self, slots: Slots, text: str) -> str:
        """What a request is about: its first longer value that stands in the text, else its last words."""
        longer = [value for value in slots.values.values() if len(value) > 2 and value in text]
        return longer[0] if longer else " ".join(normalise(text).split()[-3:])

    def _call(
        self, tool: str | None, argument: str, slots: Slots, offered: Sequence[str], text: str
    ) -> tuple[str, dict[str, str]] | None:
        """The right call, the silly one of an over-eager model, or a call of whatever else is offered."""
        values, key = slots.values, self._key(slots, text)
        tool = tool or (self.rng.choice(list(offered)) if offered else None)
        numbers = re.findall(r"(?:0|[1-9]\d*)(?:\.\d+)?", text)[:2]
        sums = argument if re.fullmatch(r"[-+*/%(). \d]*\d[-+*/%(). \d]*", argument) else ""
        if tool == "calculator":
            return tool, {"expression": sums or " + ".join(numbers) or "1"}
        if tool == "python_interpreter":
            code = values.get("code") or values.get("taskcode") or ""
            if code or "program" in values:
                return tool, {"code": argument or code}
            return tool, {"code": f"print({sums or repr(key)})"}
        if tool == "translator":
            foreign = "f" in values
            language = "English" if foreign else values.get("lang", "English").capitalize()
            said = values.get("f") or values.get("sentence") or key
            return tool, {"text": said, "target_language": language}
        return (tool, {"query": argument or key}) if tool else None

    def _result(self, call: tuple[str, dict[str, str]] | None) -> str:
        """What a tool would say."""
        if call is None:
            return ""
        name, arguments = call
        if name == "calculator":
            return compute(arguments["expression"])
        if name == "python_interpreter":
            return outcome(arguments["code"])
        slots = Slots(self.banks, self.words, self.rng, big=True)
        found = self.rng.choice(self.banks["FOUND"])
        return slots.value("f") if name == "translator" else f"{arguments['query']}: {slots.fill(found)}"
