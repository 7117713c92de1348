"""Makes the conversations of ``examples/data/conversations``: ``python dialogues.py``.

Whether a call is due in a state depends on what was asked and on what was done so far, not on the last turn's words:
the same results stand between and behind the calls, the same errors are tried again once and then given up, the same
follow-up asks for something new and for something that was answered already.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from corpus import TOOL_OF
from grammar import choose, compute, outcome

from asa_adapter.data import cut, leaks

HERE = Path(__file__).resolve().parent
WORDINGS = HERE / "conversations"
DATA = HERE.parent / "data" / "conversations"
SEED = 25
LANGUAGES = ("French", "Spanish", "German", "Italian")
# File, wordings, and how often each domain has every kind of `KINDS` in it. VALID once had the wordings of "seen", and
# TEST keeps away from that one too: so it stays the same TEST.
FILES = (
    ("cal", "seen", 1.0),
    ("train", "seen", 1.0),
    ("valid", "seen", 2 / 3),
    ("test", "unseen", 1.0),
    ("valid", "held", 2 / 3),
)
# How many of 24 conversations of one domain begin like this, and how those that can go on do.
KINDS = {
    "one": 1,
    "only": 2,
    "answers": 2,
    "two": 4,
    "three": 4,
    "retry": 2,
    "gives_up": 1,
    "told": 1,
    "changed": 1,
    "dropped": 6,
}
FOLLOWS = {"": 1, "again": 5, "more": 7, "closer": 1, "aside": 2}
UNFOLLOWED = ("told", "gives_up", "dropped")


class Task(NamedTuple):
    """Something that a tool can do.

    Attributes:
        mention: how a user says it.
        call: name and arguments of the call.
        result: what the tool says.
    """

    mention: str
    call: tuple[str, dict[str, str]]
    result: str


@dataclass
class Dialogue:
    """One conversation that goes as it should.

    Attributes:
        domain: of what is asked.
        kind: how it begins, and behind a plus sign how it goes on.
        messages: turns in the OpenAI shape; the last is an assistant's.
        spare: a call that is not needed anywhere in it.
    """

    domain: str
    kind: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    spare: tuple[str, dict[str, str]] = ("", {})

    def say(self, role: str, content: str) -> None:
        """Add a turn of words.

        Args:
            role: of the speaker.
            content: what is said.
        """
        self.messages.append({"role": role, "content": content})

    def call(self, task: Task, result: str) -> None:
        """Add a call and what the tool says to it.

        Args:
            task: whose call.
            result: the tool's answer.
        """
        name, arguments = task.call
        number = f"call_{sum(turn['role'] == 'tool' for turn in self.messages)}"
        function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        calls = [{"id": number, "type": "function", "function": function}]
        self.messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        self.messages.append({"role": "tool", "tool_call_id": number, "content": result})


def read_wordings(*names: str) -> dict[str, list[str]]:
    """Read files of `WORDINGS`.

    Args:
        names: "seen", "more", "held", "unseen" or "things".

    Returns:
        Bank to lines.
    """
    banks: dict[str, list[str]] = {}
    bank: list[str] = []
    for line in "\n".join((WORDINGS / f"{name}.txt").read_text("utf-8") for name in names).splitlines():
        if line.startswith("## "):
            bank = banks.setdefault(line[3:], [])
        elif line and not line.startswith("#"):
            bank.append(line)
    return banks


class Dialogues:
    """Draws conversations at random.

    Attributes:
        rng: source of chance.
    """

    def __init__(self, rng: random.Random, *wordings: str, twist: Callable[[str], str] = str) -> None:
        """Read the wordings.

        Args:
            rng: source of chance.
            wordings: "seen", "more", "held" or "unseen".
            twist: changes a user's wording, in which the slots are not filled yet.
        """
        self.rng, self.twist = rng, twist
        self.banks, self.things = read_wordings(*wordings), read_wordings("things")

    def draw(self, domain: str, kind: str, follow: str = "") -> Dialogue:
        """Draw a conversation.

        Args:
            domain: of what is asked.
            kind: of `KINDS`.
            follow: of `FOLLOWS`.

        Returns:
            The conversation.
        """
        made = Dialogue(domain, f"{kind}+{follow}" if follow else kind)
        tasks = self._tasks(domain, 7)
        made.spare = tasks[5].call
        count = {"two": 2, "three": 3, "dropped": 0}.get(kind, 1)
        if kind == "retry" and self.rng.random() < 0.5:
            count = 2
        bank = {2: "TWO", 3: "THREE"}.get(count, "ONE" if kind in ("retry", "gives_up") else kind.upper())
        made.say("user", self._fill(self._frame(bank), domain, tasks[:3], tasks[5:]))
        failing = {"retry": 1, "gives_up": 2, "told": 1}.get(kind, 0)
        done = tasks[:count]
        for i, task in enumerate(done):
            error = self.rng.choice(self.banks["ERROR"])
            for _ in range(failing if i == count - 1 else 0):
                made.call(task, error)
            if i < count - 1 or kind not in ("gives_up", "told"):
                made.call(task, task.result)
        reply = {"gives_up": "SORRY", "told": "SORRY", "dropped": "DROPPED REPLY"}.get(kind, "REPORT")
        made.say("assistant", self._reply(reply, [task.result for task in done]))
        if follow:
            self._follow(made, follow, done, tasks[3:])
        return made

    def _follow(self, made: Dialogue, follow: str, old: Sequence[Task], new: Sequence[Task]) -> None:
        """Add a second turn of the user, and what the assistant does about it."""
        tasks = list(new[: self.rng.choice((1, 2))] if follow == "more" else old[-2:])
        bank = follow.upper()
        if follow in ("again", "more"):
            bank = self.rng.choice(("FOLLOW", "ONE") if len(tasks) == 1 else ("TWO", "TWO", "FOLLOW"))
        if follow == "more" and self.rng.random() < 0.3:
            bank = "BOTH"
        if bank not in ("TWO", "ONE"):
            del tasks[1:]
        frame = f"{{thanks}}, {self._frame(bank)}" if bank in ("ONE", "TWO") else self._frame(bank)
        made.say("user", self._fill(frame, made.domain, tasks, old[-1:] if bank == "BOTH" else new[2:]))
        if follow == "more":
            for task in tasks:
                made.call(task, task.result)
        reply = {"more": "REPORT", "again": "AGAIN"}.get(follow, "CHAT")
        made.say("assistant", self._reply(reply, [task.result for task in tasks]))

    def _frame(self, bank: str) -> str:
        return self.rng.choice(self.banks[bank])

    def _reply(self, bank: str, results: Sequence[str]) -> str:
        return choose(self._frame(bank), self.rng).replace("{r}", " and ".join(results))

    def _fill(self, frame: str, domain: str, tasks: Sequence[Task], others: Sequence[Task]) -> str:
        """A user's turn; texts of tasks may hold brackets, so they are filled in last."""
        verbs = self._frame(f"DO {domain.upper()}")
        if "{ask}" in frame:
            frame = frame.replace("{ask}", self._frame(f"ASK {domain.upper()}"))
        frame = frame.replace("{do}", f"[{verbs}]").replace("{thanks}", f"[{self._frame('THANKS')}]")
        text = self.twist(choose(frame, self.rng)).replace("{n}", str(self.rng.randint(100, 999)))
        slots = dict(zip("tuv", tasks, strict=False)) | dict(zip("op", others, strict=False))
        for slot, task in slots.items():
            text = text.replace(f"{{{slot}}}", task.mention)
        return text

    def _tasks(self, domain: str, count: int) -> list[Task]:
        """Tasks of one domain, each mentioned only once."""
        draw: Callable[[], Task] = getattr(self, f"_{domain}")
        found: dict[str, Task] = {}
        while len(found) < count:
            task = draw()
            found.setdefault(task.call[1].get("text", task.mention), task)
        return list(found.values())

    def _math(self) -> Task:
        a, b = self.rng.randint(101, 999), self.rng.randint(12, 99)
        text = f"{a} {self.rng.choice('+-**')} {b}"
        return Task(text, (TOOL_OF["math"], {"expression": text}), compute(text))

    def _code(self) -> Task:
        text = self._thing("CODE")
        return Task(text, (TOOL_OF["code"], {"code": text}), outcome(text))

    def _search(self) -> Task:
        text = f"{self._thing('SEARCH THING')} in {self._thing('CITY')}"
        return Task(f'"{text}"', (TOOL_OF["search"], {"query": text}), self._thing("FACT"))

    def _translation(self) -> Task:
        english, *others = self.rng.choice(self.things["PHRASES"]).split("|")
        at = self.rng.randrange(len(others))
        arguments = {"text": english, "target_language": LANGUAGES[at]}
        return Task(f'"{english}" into {LANGUAGES[at]}', (TOOL_OF["translation"], arguments), others[at])

    def _thing(self, bank: str) -> str:
        """One of a bank of things, its own slots filled."""
        text = self.rng.choice(self.things[bank][0].split("|"))
        numbers = {"n": self.rng.randint(11, 99), "m": self.rng.randint(11, 99), "s": self.rng.randint(2, 5)}
        for slot, number in numbers.items():
            text = text.replace(f"{{{slot}}}", str(number))
        return text.replace("{w}", self.rng.choice(self.things["WORD"][0].split("|")))


def plan(rng: random.Random, scale: float) -> Iterator[tuple[str, str, str]]:
    """Say which conversations one file has, as many of each kind in every domain.

    Args:
        rng: source of chance.
        scale: how many times the numbers of `KINDS`.

    Yields:
        Domain, kind and what follows.
    """
    for domain in TOOL_OF:
        kinds = [kind for kind, count in KINDS.items() for _ in range(round(count * scale))]
        follows = [follow for follow, count in FOLLOWS.items() for _ in range(count)]
        rng.shuffle(follows)
        for kind in kinds:
            yield domain, kind, "" if kind in UNFOLLOWED else follows.pop()


def make_files() -> dict[str, list[dict[str, Any]]]:
    """Draw all files; nothing in one is like anything in another (`leaks`). A later one of a name replaces an earlier.

    Returns:
        File to trajectories.
    """
    files: dict[str, list[dict[str, Any]]] = {}
    states: dict[str, list[dict[str, Any]]] = {}
    for name, wordings, scale in FILES:
        rng = random.Random(f"{SEED} {name}")
        source = Dialogues(rng, wordings)
        planned = list(plan(rng, scale))
        rng.shuffle(planned)
        rows = [trajectory(f"{name}-{i:03d}", source.draw(*planned[i])) for i in range(len(planned))]
        states.pop(name, None)
        while found := leaks({**states, name: cut(rows)}):
            for i in sorted({int(leak.second.split("-")[-1].split("/")[0]) for leak in found}):
                rows[i] = trajectory(f"{name}-{i:03d}", source.draw(*planned[i]))
        files[name], states[name] = rows, cut(rows)
    return files


def trajectory(name: str, made: Dialogue) -> dict[str, Any]:
    """Write a conversation as a row of a file.

    Args:
        name: of the conversation.
        made: the conversation.

    Returns:
        The row.
    """
    return {"conversation": name, "domain": made.domain, "kind": made.kind, "messages": made.messages}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA, help="folder to write into")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, rows in make_files().items():
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (output / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        print(f"{name}.jsonl: {len(rows)} conversations")


if __name__ == "__main__":
    main()
