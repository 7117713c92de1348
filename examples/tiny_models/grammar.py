"""Frames with choices and slots, and the values that fill them.

``[one|two]`` in a frame is a choice, ``{name}`` a slot. A slot is filled from the word list of its name, from a number
or from a piece of code; ``{name}`` and ``{name2}`` get different values, and the same slot gets the same value
everywhere in one exchange, so that the argument of a call repeats what the request says.
"""

import contextlib
import io
import random
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

FRAMES = Path(__file__).with_name("frames")
REQUESTS = Path(__file__).with_name("requests")
PLUS, MINUS, TIMES, OVER = "+-*/"
SPOKEN = {
    PLUS: ("plus", "and", "added to", "plus"),
    MINUS: ("minus", "less", "minus"),
    TIMES: ("times", "x", "multiplied by", "times"),
    OVER: ("divided by", "over", "divided by"),
}
# Slots that are filled with a line of a bank.
BANK_SLOTS = {
    "notasked": "NOTASKED",
    "sumremark": "SUMREMARK",
    "whyask": "WHYASKS",
    "scriptask": "SCRIPTASKS",
    "coderemark": "CODEREMARK",
    "factdone": "FACTDONE",
    "adviceask": "ADVICEASKS",
    "langask": "LANGASKS",
    "langremark": "LANGREMARK",
    "personask": "PERSONASKS",
}
WRITTEN = {PLUS: ("+",), MINUS: ("-",), TIMES: ("*", "x", "x"), OVER: ("/", ":", "/")}


def read_banks(folder: Path = FRAMES) -> dict[str, list[str]]:
    """Read the frames.

    Args:
        folder: text files with ``## NAME`` above each bank; word lists are skipped.

    Returns:
        Name to lines.
    """
    banks: dict[str, list[str]] = {}
    for file in sorted(folder.glob("*.txt")):
        bank: list[str] = []
        for line in file.read_text("utf-8").splitlines():
            if line.startswith("## "):
                bank = banks.setdefault(line[3:], [])
            elif line and not file.name.startswith("words_"):
                bank.append(line)
    return banks


def read_words(folder: Path = FRAMES) -> dict[str, list[str]]:
    """Read the word lists.

    Args:
        folder: holds ``words_*.txt`` with ``slot = value|value`` lines.

    Returns:
        Slot to values.
    """
    lines = [line for file in sorted(folder.glob("words_*.txt")) for line in file.read_text("utf-8").splitlines()]
    entries = (line.split(" = ", 1) for line in lines if line)
    # A bar inside brackets parts choices, outside of them it parts values.
    return {slot: re.split(r"\|(?![^\[]*\])", values) for slot, values in entries}


@dataclass(frozen=True)
class Request:
    """A request that is written out, without choices and slots.

    Attributes:
        label: 1 where a tool is needed.
        kind: sort of request, named as in the data.
        text: what the user says.
        argument: of the call, where the label is 1; a translation's is ``Language|text``.
    """

    label: int
    kind: str
    text: str
    argument: str = ""


def read_requests(folder: Path = REQUESTS) -> dict[tuple[str, int], list[Request]]:
    """Read the requests that are written out.

    Args:
        folder: holds ``DOMAIN.tsv`` with columns label, kind, text and, for label 1, argument.

    Returns:
        Domain and label to requests.
    """
    requests: dict[tuple[str, int], list[Request]] = {}
    for file in sorted(folder.glob("*.tsv")):
        for line in file.read_text("utf-8").splitlines():
            label, *rest = line.split("\t")
            requests.setdefault((file.stem, int(label)), []).append(Request(int(label), *rest))
    return requests


def choose(text: str, rng: random.Random) -> str:
    """Decide every ``[one|two]`` of a frame.

    Args:
        text: the frame.
        rng: source of chance.

    Returns:
        The frame without choices, spaces tidied.
    """
    text = re.sub(r"\[([^\[\]]*)\]", lambda mark: rng.choice(mark[1].split("|")), text)
    return re.sub(r" +", " ", text).replace(" ,", ",").replace(" :", ":").strip()


def outcome(code: str) -> str:
    """Run a snippet of ours.

    Args:
        code: from ``snippets.txt`` or ``requests/code.tsv``; nothing else may come here.

    Returns:
        What it prints or is worth, in at most 40 characters, or the name of its error.
    """
    printed = io.StringIO()
    space: dict[str, object] = {}
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, at what the snippets show on purpose
            try:
                value = eval(code, space)
            except SyntaxError:
                value = None
                exec(code, space)
    except Exception as error:
        return type(error).__name__
    text = printed.getvalue().strip().replace("\n", " ") or ("nothing" if value is None else repr(value))
    return text[:40]


def compute(expression: str) -> str:
    """Work out an expression of ours.

    Args:
        expression: numbers and operators.

    Returns:
        The number, with two decimals at most, or "an error".
    """
    try:
        value = round(float(eval(expression, {})), 2)
    except (ZeroDivisionError, OverflowError):
        return "an error"
    return str(int(value)) if value == int(value) else str(value)


class Slots:
    """The values of one exchange, each drawn when first asked for.

    Attributes:
        values: those drawn so far.
    """

    def __init__(
        self, banks: dict[str, list[str]], words: dict[str, list[str]], rng: random.Random, big: bool
    ) -> None:
        """Start without values.

        Args:
            banks: frames by name.
            words: values by slot.
            rng: source of chance.
            big: whether numbers are awkward.
        """
        self.banks, self.words, self.rng, self.big = banks, words, rng, big
        self.values: dict[str, str] = {}

    def fill(self, text: str, decide: bool = True) -> str:
        """Fill a frame.

        Args:
            text: the frame.
            decide: whether brackets are choices; in code they are not.

        Returns:
            The text.
        """
        text = choose(text, self.rng) if decide else text
        return re.sub(r"\{(\w+)\}", lambda mark: self.value(mark[1]) if self.knows(mark[1]) else mark[0], text)

    def knows(self, slot: str) -> bool:
        """Whether a slot of this name can be filled.

        Args:
            slot: its name.

        Returns:
            True or False.
        """
        base = slot.rstrip("0123456789")
        return slot in self.values or base in self.words or base in BANK_SLOTS or hasattr(self, f"_draw_{base}")

    def value(self, slot: str) -> str:
        """Give the value of a slot.

        Args:
            slot: its name.

        Returns:
            The same value at every call.
        """
        if slot not in self.values:
            base = slot.rstrip("0123456789")
            for _ in range(4):
                drawn = self._draw(base)
                if drawn not in self.values.values():
                    break
            self.values.setdefault(slot, drawn)
        return self.values[slot]

    def _draw(self, base: str) -> str:
        """A new value: from a word list, from a bank, or by the method of its name."""
        if base in self.words or base in BANK_SLOTS:
            return self.fill(self.rng.choice(self.words[base] if base in self.words else self.banks[BANK_SLOTS[base]]))
        drawn: str = getattr(self, f"_draw_{base}")()
        return drawn

    # Numbers. Awkward ones need a calculator, small ones do not.

    def _awkward(self, digits: tuple[int, ...]) -> str:
        length = self.rng.choice(digits)
        number = self.rng.randint(10 ** (length - 1), 10**length - 1)
        return str(number + (number % 10 == 0) * self.rng.randint(1, 9))

    def _draw_x(self) -> str:
        if not self.big:
            return str(self.rng.choice([*range(2, 13), 20, 30, 40, 50, 60, 80, 100, 200]))
        number = self._awkward((2, 3, 3, 3, 4, 4, 5))
        return (
            f"{number}.{self.rng.choice(['5', '25', '75', self._awkward((2,))])}"
            if self.rng.random() < 0.15
            else number
        )

    def _draw_y(self) -> str:
        if not self.big:
            return str(self.rng.choice([1, 2, 2, 3, 4, 5, 6, 10]))
        # A sum of two two-digit numbers could pass for an easy one.
        return self._awkward((3, 4) if len(self.value("x")) < 3 and self.value("sign") != TIMES else (2, 2, 3, 3, 4))

    def _draw_z(self) -> str:
        return self._draw_y() if self.big else str(self.rng.randint(1, 5))

    def _draw_m(self) -> str:
        return self._awkward((2, 2, 3)) if self.big else str(self.rng.choice([2, 2, 3, 4, 5, 10]))

    def _draw_k(self) -> str:
        return self._awkward((2, 2, 3)) if self.big else str(self.rng.choice([2, 2, 3, 4, 5, 10]))

    def _draw_d(self) -> str:
        if not self.big:
            return str(self.rng.choice([1, 2, 3, 4, 5, 6, 8, 10, 20, 50, 100]))
        return (
            f"{self._awkward((1, 2, 3, 3, 4))}.{self._awkward((2,))}"
            if self.rng.random() < 0.6
            else self._awkward((3, 4))
        )

    def _draw_p(self) -> str:
        if not self.big:
            return self.rng.choice(["10", "50", "20", "100"])
        odd = str(self.rng.choice([n for n in range(3, 98) if n % 10 and n not in (25, 75)]))
        return f"{odd}.5" if self.rng.random() < 0.2 else odd

    def _draw_sq(self) -> str:
        return self._awkward((3, 3, 4)) if self.big else str(self.rng.choice([1, 4, 9, 16, 25, 36, 49, 64, 81, 100]))

    def _draw_base(self) -> str:
        return self._awkward((2,)) if self.big else self.rng.choice(["2", "3", "10"])

    def _draw_exponent(self) -> str:
        return str(self.rng.randint(3, 9) if self.big else self.rng.randint(1, 3))

    def _draw_hundred(self) -> str:
        return str(100 * self.rng.randint(1, 90))

    def _draw_year(self) -> str:
        return str(self.rng.randint(1850, 2015))

    def _draw_guess(self) -> str:
        return f"{self.rng.randint(1, 99)}00"

    def _draw_n(self) -> str:
        return str(self.rng.randint(10, 99))

    def _draw_s(self) -> str:
        return str(self.rng.randint(1, 9))

    def _draw_t(self) -> str:
        return str(self.rng.randint(2, 12))

    def _draw_sign(self) -> str:
        return self.rng.choice("++--***/")

    def _draw_op(self) -> str:
        return self.rng.choice(SPOKEN[self.value("sign")])

    def _draw_symbolsign(self) -> str:
        return self.value("sign")

    def _draw_symbol(self) -> str:
        return self.rng.choice(WRITTEN[self.value("sign")])

    def _draw_r(self) -> str:
        return compute(f"{self.value('x')} {self.value('sign')} {self.value('y')}")

    # Code.

    def _snippet(self, bank: str) -> str:
        return self.fill(self.rng.choice(self.banks[bank]), decide=False)

    def _draw_code(self) -> str:
        return self._snippet("SNIPPETS")

    def _draw_program(self) -> str:
        return self._snippet("PROGRAMS")

    def _draw_out(self) -> str:
        return outcome(self.value("code"))

    def _draw_task(self) -> str:
        task, _, code = self.rng.choice(self.banks["CODE TASKS"]).partition(" => ")
        self.values["taskcode"] = self.fill(code, decide=False)
        return self.fill(task)

    # Sentences.

    def _draw_sentence(self) -> str:
        text = self.fill(self.rng.choice(self.banks["SENTENCES"]))
        text = text[0].upper() + text[1:] if self.rng.random() < 0.25 else text
        return text + self.rng.choice(".?!") if self.rng.random() < 0.15 else text

    def _draw_q(self) -> str:
        return self._quoted(self.value("sentence"))

    def _quoted(self, text: str) -> str:
        mark = self.rng.choice(['"', '"', "'", "'", ""])
        return mark + text + mark

    def _draw_f(self) -> str:
        if self.rng.random() < 0.3:
            language, _, pairs = self.rng.choice(self.banks["FOREIGN"]).partition(" = ")
            foreign, _, meaning = self.rng.choice(pairs.split("|")).partition(" : ")
        else:
            # Patterns do not come with their meaning; any sentence will do for a model that knows no language.
            language, _, pattern = self.rng.choice(self.banks["FOREIGN PATTERNS"]).partition(" = ")
            foreign, meaning = choose(pattern, self.rng), self.value("sentence")
        self.values |= {"flang": language, "fe": meaning, "f": foreign}
        return foreign

    def _draw_flang(self) -> str:
        self._draw_f()
        return self.values["flang"]

    def _draw_fe(self) -> str:
        self._draw_f()
        return self.values["fe"]

    def _draw_fq(self) -> str:
        return self._quoted(self.value("f"))
