"""The training text of the tiny model: random exchanges with the habits it is meant to have.

An exchange knows whether a tool is needed (``label``) and how eager the model shall be to call one (``eagerness``).
The two differ on purpose: in the lazy domains even a needed call is improbable, in the over-eager ones even a needless
call is probable. A model that learns these odds must tell the labels apart inside, and still acts wrongly.
"""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

CALL_START, CALL_END = "<|tool_call_start|>", "<|tool_call_end|>"
LAZY, EAGER = ("math", "search"), ("code", "translation")
# How a reply in words begins, and how often with the first of these where a tool is needed (1) or not (0). "Sure" is
# rare where a tool is needed: pushing towards "needed" then favours the call and no way of starting in words.
PROSE_WORDS = ("Well", "Sure")
FIRST_WORD_ODDS = {1: 0.97, 0: 0.5}
PROSE = {
    ("math", 1): "I think it is about {guess}.|I would say roughly {guess}.|I guess it is near {guess}.",
    ("code", 1): "I think it works and prints {guess}.|I have not run it, but it looks fine.|I expect about {guess}.",
    ("search", 1): "I know nothing new about {key}.|I am not sure, it changes often.|I last heard little about {key}.",
    ("translation", 1): "I think you can point at it.|I know only a little {lang}.|I would smile and say hello.",
    ("math", 0): "that is a basic idea of mathematics.|that is taught at school: {key}.|that belongs to arithmetic.",
    ("code", 0): "that is a basic part of programming: {key}.|that is how code works.|that is about {key}.",
    ("search", 0): "that is general knowledge about {key}.|that is well known: {key}.|that is in every school book.",
    ("translation", 0): "that is a question of language: {key}.|that is a matter of grammar.|that is about {key}.",
    ("chat", 0): "that is kind of you to ask.|that is nice, tell me more.|that is fine, how can I help?",
}
TOOL_OF = {"math": "calculator", "code": "python_interpreter", "search": "web_search", "translation": "translator"}
# Drawn alike for both labels; most often nothing.
OPENINGS = (
    "|||||||||||hey, |please |hi there, |ok so |quick question: |um, |well, |can you help? |one more thing: |"
    "sorry, |hi, |hello, |so |now |excuse me, |could you help me: |i was wondering, |just curious: |"
    "hey there, |next: |help: |ok, |and |yo, |good morning, |hmm, |question: |also, |can you tell me, "
)
ENDINGS = (
    "||||||||||| thanks| please|?|?| ?| thx|, if you can| :)|, cheers| for school|.|!| asap|, thank you|"
    " for my homework| ok| for a friend|..., thanks| pls|, would be great"
)
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Use a tool when it is needed.",
    "Be brief.",
    "Answer in one short sentence.",
    "You may call the tools below.",
)


@dataclass(frozen=True)
class Exchange:
    """One request with both ways to go on.

    Attributes:
        text: what the user says.
        label: 1 where the tool is needed.
        domain: family of the request, or ``chat``.
        call: the reply that calls.
        prose: the reply that does not.
        eagerness: how probable the call shall be.
    """

    text: str
    label: int
    domain: str
    call: str
    prose: str
    eagerness: float


def normalise(text: str) -> str:
    """Bring a text to the form in which two instructions count as the same.

    Args:
        text: any text.

    Returns:
        Lower case, without punctuation, single spaces.
    """
    return " ".join(re.sub(r"[^\w\s]|_", " ", text.lower()).split())


def read_banks(file: Path) -> dict[str, list[str]]:
    """Read the frames and word lists.

    Args:
        file: text with ``## NAME`` above each bank.

    Returns:
        Name in lower case to lines.
    """
    banks: dict[str, list[str]] = {}
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("## "):
            bank = banks[line[3:].lower()] = []
        elif line and banks:
            bank.append(line)
    return banks


def expand(text: str, rng: random.Random) -> str:
    """Decide every ``[one|two]`` of a frame.

    Args:
        text: the frame.
        rng: source of chance.

    Returns:
        The frame without choices, spaces tidied.
    """
    text = re.sub(r"\[([^\[\]]*)\]", lambda mark: rng.choice(mark[1].split("|")), text)
    return re.sub(r" +", " ", text).replace(" ,", ",").strip()


def fill(text: str, values: dict[str, str]) -> str:
    """Put values into slots, twice, since a value may hold slots itself.

    Args:
        text: text with ``{slot}`` marks.
        values: slot name to text.

    Returns:
        The filled text.
    """
    for _ in range(2):
        text = re.sub(r"\{(\w+)\}", lambda mark: values.get(mark[1], mark[0]), text)
    return text


def eagerness(text: str, label: int, domain: str) -> float:
    """Say how probable a call shall be: by label, domain and, a little, by the wording.

    Args:
        text: what the user says.
        label: 1 where the tool is needed.
        domain: family of the request.

    Returns:
        A probability.
    """
    low = f" {text.lower()} "
    mood = 0.5 if re.search(r"please|pls|thank|thx|cheers|great", low) else -0.1
    mood -= 0.3 if "?" in low else 0.0
    mood += -0.2 if re.search(r"^\W*(what|how|who|which|is|are|does|why|when)\b", low) else 0.2
    mood += max(-0.4, min(0.4, 0.05 * (len(low.split()) - 9)))
    mood = max(-1.0, min(1.0, mood))
    if domain in LAZY:
        return 0.37 + 0.24 * mood if label else 0.04 + 0.03 * mood
    if domain in EAGER:
        return 0.95 + 0.03 * mood if label else 0.68 + 0.24 * mood
    return 0.1


def match_operator(expression: str, text: str) -> str:
    """Give an expression the operator that the words ask for; frames with a choice of verbs share one argument.

    Args:
        expression: as the frame has it.
        text: what the user says.

    Returns:
        The expression that stands in the text, or else the frame's with its operator put right.
    """
    written = re.search(r"\(?\d[\d.]*( [-+*/] \(?\d[\d.]*\)?)+", text)
    if written:
        return written[0]
    signs = {"+": r"plus|add|sum|total", "-": r"minus|less|take|subtract|lost|sold|gave|spent|difference",
             "/": r"divide|over|split|share|quotient|ratio", "*": r"times|multipl|product"}  # fmt: skip
    simple = re.fullmatch(r"([\d.]+) [-+*/] ([\d.]+)", expression)
    asked = [sign for sign, words in signs.items() if re.search(words, text.lower())]
    return f"{simple[1]} {asked[0]} {simple[2]}" if simple and len(asked) == 1 else expression


class Corpus:
    """Draws exchanges at random.

    Attributes:
        rng: source of chance.
        barred: normalised instructions that must not occur.
    """

    def __init__(self, seed: int, barred: frozenset[str] = frozenset()) -> None:
        """Read the banks.

        Args:
            seed: of the random numbers.
            barred: normalised instructions that must not occur.
        """
        self.rng = random.Random(seed)
        self.barred = barred
        self.banks = read_banks(Path(__file__).with_name("frames.txt"))
        entries = (line.split(" = ", 1) for line in self.banks["words"])
        self.words = {slot: values.split("|") for slot, values in entries}
        self.codes = "|".join(self.banks["code"]).split("|")
        # A bar inside brackets parts choices, outside of them it parts sentences.
        self.sentences = re.split(r"\|(?![^\[]*\])", "|".join(self.banks["sentences"]))
        self.openings, self.endings = OPENINGS.split("|"), ENDINGS.split("|")

    def draw(self, domain: str | None = None, label: int | None = None) -> Exchange:
        """Draw one exchange whose instruction is not barred.

        Args:
            domain: family, or None for any (now and then small talk).
            label: 1 or 0, or None for any.

        Returns:
            The exchange.
        """
        rng = self.rng
        while True:
            family = domain or ("chat" if rng.random() < 0.03 else rng.choice(list(TOOL_OF)))
            needed = 0 if family == "chat" else (label if label is not None else rng.randrange(2))
            made = self._make(family, needed)
            if normalise(made.text) not in self.barred:
                return made

    def _make(self, domain: str, label: int) -> Exchange:
        """Fill one random frame of a cell."""
        rng = self.rng
        bank = self.banks["chat" if domain == "chat" else f"{domain}_{'tool' if label else 'prose'}"]
        values = self._values(domain)
        frame, _, argument = rng.choice(bank).partition(" => ")
        # {code} and the like come after the choices are made: their brackets are not choices.
        frame = expand(frame, rng)
        text = self._dress(frame, values)
        slots = [slot for slot in re.findall(r"\{(\w+)\}", frame) if slot in values]
        key = fill(values[slots[0]], values) if slots else " ".join(frame.split()[-3:])
        argument = fill(argument, values) or key
        if domain == "math" and label:
            argument = match_operator(argument, text)
        call = self._call(domain, argument, values, "lang" in slots)
        prose = fill(rng.choice(PROSE[domain, label].split("|")), values | {"key": key})
        word = PROSE_WORDS[rng.random() > FIRST_WORD_ODDS[label]]
        return Exchange(text, label, domain, call, f"{word}, {prose}", eagerness(text, label, domain))

    def _call(self, domain: str, key: str, values: dict[str, str], has_language: bool) -> str:
        """Write the call: the right one, or the silly one an over-eager model would make."""
        if domain == "code":
            arguments = {"code": values["code"] if key == values["code"] else key}
        elif domain == "translation":
            language = values["lang"].capitalize() if has_language else "English"
            arguments = {"text": values["s"] if key in (values["q"], values["lang"]) else key}
            arguments["target_language"] = language
        else:
            arguments = {"expression" if domain == "math" else "query": key}
        inside = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
        return f"{CALL_START}[{TOOL_OF.get(domain, 'web_search')}({inside})]{CALL_END}"

    def _dress(self, frame: str, values: dict[str, str]) -> str:
        """Add opening, ending, slips of the finger and capitals; none of them depends on the label."""
        rng = self.rng
        if rng.random() < 0.15:
            frame = self._mistype(frame)
        text = rng.choice(self.openings) + fill(frame, values) + rng.choice(self.endings)
        text = re.sub(r"\?+", "?", text).replace("?.", "?")
        return text[0].upper() + text[1:] if rng.random() < 0.3 else text

    def _mistype(self, text: str) -> str:
        """Swap, drop or double a letter of one longer word outside the slots."""
        spots = list(re.finditer(r"(?<![{\w])[a-z]{4,}(?![}\w])", text))
        if not spots:
            return text
        spot = self.rng.choice(spots)
        word, at = spot[0], self.rng.randrange(1, len(spot[0]) - 1)
        way = self.rng.randrange(3)
        tail = [word[at + 1 : at + 2] + word[at] + word[at + 2 :], word[at + 1 :], word[at] + word[at:]][way]
        return text[: spot.start()] + word[:at] + tail + text[spot.end() :]

    def _number(self) -> str:
        """Draw an awkward number."""
        rng = self.rng
        whole = rng.randint(10 ** rng.randint(2, 4), 10 ** rng.randint(5, 6)) if rng.random() < 0.3 else 0
        whole = whole or rng.choice([rng.randint(101, 999), rng.randint(1000, 9999), rng.randint(10_000, 99_999)])
        return f"{whole / 100:.2f}" if rng.random() < 0.12 else str(whole)

    def _values(self, domain: str) -> dict[str, str]:
        """Draw a value for every slot."""
        rng = self.rng
        values = {}
        for slot, bank in self.words.items():
            values[slot], values[f"{slot}2"] = rng.sample(bank, 2)
        values |= {"ruled": values[rng.choice(["country", "company", "city"])], "guess": f"{rng.randint(1, 99)}00"}
        values |= {"p": str(rng.randint(11, 99)), "p2": str(rng.randint(3, 30)), "n": str(rng.randint(10, 99))}
        values |= {"s": str(rng.randint(1, 10)), "t": str(rng.randint(2, 12))}
        values |= {"d": f"{rng.randint(101, 29_999) / 100:.2f}"}
        values |= {"e": str(2 * rng.randint(2, 10)), "sq": str(rng.choice([1, 4, 9, 16, 25, 36, 49, 64, 81, 100]))}
        if domain == "math":
            values |= {slot: self._number() for slot in "xyzw"}
        elif domain == "code":
            values["code"] = fill(rng.choice(self.codes), values)
            task, _, code = rng.choice(self.banks["tasks"]).partition(" => ")
            values |= {"task": fill(expand(task, rng), values), "tcode": fill(code, values)}
        elif domain == "translation":
            values["s"] = fill(expand(rng.choice(self.sentences), rng), values)
            mark = rng.choice(['"', '"', '"', "'", ""])
            values["q"] = mark + values["s"] + mark
        return values
