"""How often a training ships what is no gain, and how often what is one: the rule of the sure gain, simulated.

    python tests/benchmarks/sure_gain.py [--trials 1000]

No model is run. Rows, the bare model's answers and those of four finalists are drawn with known chances, so that the
true gain of every finalist is known; then `choose` and `sure_gain` decide as they do in a training.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.finalists import ScreenedFinalists, choose
from asa_adapter.choice.gain import GainRedraw, sure_gain
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.evaluation.metrics import ConfusionCounts

MANY = 200_000


@dataclass(frozen=True)
class World:
    """Where rows come from.

    Attributes:
        name: what the table calls it.
        gains: for each finalist, gentlest first, how much rarer its wrong answers are than the bare model's.
        wrong: share of the bare model's answers that are wrong.
        needed: share of rows that need a tool.
        copies: how often each row stands in VALID.
        turns: rows of one conversation.
        alike: chance that a row's luck is that of its conversation.
        shared: chance that bare and steered model have the same luck with a row.
        common: chance that the finalists have the same luck where the bare model's is another.
        calls: shares of calls of the bare model and the finalists where labels are coin flips; None: they are not.
        objective: what settings are chosen by.
        train: rows of TRAIN that count in the choice, for each one of VALID.
    """

    name: str
    gains: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    wrong: float = 0.3
    needed: float = 0.5
    copies: int = 1
    turns: int = 1
    alike: float = 0.7
    shared: float = 0.5
    common: float = 0.6
    calls: tuple[float, ...] | None = None
    objective: str = "f1"
    train: int = 0


@dataclass(frozen=True)
class Drawn:
    """N rows: labels (N,), what bare model and finalists did (1 + F, N), and groups (N,)."""

    labels: NDArray[np.int64]
    called: NDArray[np.bool_]
    groups: NDArray[np.int64]


def drawn(world: World, rows: int, generator: np.random.Generator) -> Drawn:
    own = -(-rows // world.copies)
    groups = np.arange(own) // world.turns

    def of_group(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values[groups]

    def luck() -> NDArray[np.float64]:
        alone, together = generator.random(own), of_group(generator.random(own))
        return np.where(generator.random(own) < world.alike, together, alone) if world.turns > 1 else alone

    needed = generator.random(own) < world.needed
    needed[:2] = True, False
    bare, common = luck(), luck()
    shared = of_group(generator.random(own)) < world.shared
    called = []
    for i, gain in enumerate((0.0, *world.gains)):
        other = np.where(generator.random(own) < world.common, common, luck())
        chance = bare if i == 0 else np.where(shared, bare, other)
        if world.calls is None:
            called.append(needed ^ (chance < world.wrong - gain))
        else:
            called.append(chance < world.calls[i])
    rows_of = np.repeat(np.arange(own), world.copies)[:rows]
    return Drawn(needed[rows_of].astype(np.int64), np.stack(called)[:, rows_of], groups[rows_of])


def simulated(world: World, rows: int, trials: int, seed: int = 0) -> list[str]:
    """One line of the table: what a training on so many rows of VALID does."""
    args = ASATrainingArguments(objective=world.objective, resamples=1000)
    goals = Objective.of(args), Objective("balanced_accuracy")
    many = drawn(replace(world, copies=1), MANY, np.random.default_rng(1))
    counted = ConfusionCounts.of(many.labels, many.called)
    true = [goal.gain(counted)[1:] - goal.gain(counted)[0] for goal in goals]
    generator = np.random.default_rng(seed)
    shipped, false, above, told, apparent, truth = 0, 0, 0, [], [], []
    for _ in range(trials):
        sample = drawn(world, rows, generator)
        finalists = [
            Scored(
                Setting(1, 1.0 + i, 0.5, 0.0, "pooled"),
                float(goals[0].rank(ConfusionCounts.of(sample.labels, row))),
                row,
            )
            for i, row in enumerate(sample.called[1:])
        ]
        on_train = None
        if world.train:
            more = drawn(world, world.train * rows, generator)
            on_train = ScreenedFinalists(more.labels, more.called[1:], more.groups)
        given = args, sample.labels, finalists
        chosen, _ = choose(*given, sample.groups, on_train)
        gain = sure_gain(GainRedraw.of(*given, chosen, sample.groups, on_train), sample.called[0])
        index = round(chosen.setting.alpha - 1)
        above += gain.lower_bound > true[0][index]
        if gain.sure:
            shipped += 1
            false += min(true[0][index], true[1][index]) < 0.005
            told.append(gain.mean)
            apparent.append(gain.apparent)
            truth.append(true[0][index])

    def mean(values: Sequence[float]) -> str:
        return f"{np.mean(values):.3f}" if len(values) >= 20 else ""

    shares = [f"{100 * count / trials:.1f} %" for count in (shipped, false, above)]
    return [world.name, str(rows), *shares, mean(apparent), mean(told), mean(truth)]


NO_GAIN = [
    World("no gain"),
    World("no gain, luck of their own", shared=0.0, common=0.0),
    World("no gain, few mistakes", wrong=0.08),
    World("no gain, 80 % need a tool", needed=0.8),
    World("no gain, balanced accuracy", objective="balanced_accuracy"),
    World("a loss, and three equals", gains=(-0.1, 0.0, 0.0, 0.0)),
    World("a gain that is not the gentlest", gains=(0.0, 0.0, 0.0, 0.1)),
]
COIN = World("coin flips, 80 % ones", needed=0.8, calls=(0.6, 0.7, 0.8, 0.9, 0.95))
GROUPED = [
    World("no gain, four copies", copies=4),
    World("no gain, ten copies", copies=10),
    World("no gain, conversations of five", turns=5),
]
A_GAIN = [
    World("all gain .10", gains=(0.1,) * 4),
    World("all gain .10, luck of their own", gains=(0.1,) * 4, shared=0.0, common=0.0),
    World("one gains .10", gains=(0.0, 0.0, 0.1, 0.0)),
    World("all gain .10, conversations of five", gains=(0.1,) * 4, turns=5),
    World("all gain .20", gains=(0.2,) * 4),
]
WITH_TRAIN = [
    replace(world, name=f"{world.name}; TRAIN counts", train=2)
    for world in (*NO_GAIN[:2], *NO_GAIN[-2:], A_GAIN[0], A_GAIN[2])
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="trainings of each line (default: 1000)")
    trials = parser.parse_args().trials
    print("| world | rows | ships | falsely | bound above truth | measured | told | true |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    cases = [(world, rows) for world in (*NO_GAIN, COIN, *A_GAIN, *WITH_TRAIN) for rows in (40, 160)]
    cases += [(world, rows) for world in GROUPED for rows in (160, 320)]
    cases += [(world, rows) for world in (NO_GAIN[0], A_GAIN[0]) for rows in (80, 320)]
    for world, rows in sorted(cases, key=lambda case: (case[0].name, case[1])):
        print(f"| {' | '.join(simulated(world, rows, trials))} |", flush=True)


if __name__ == "__main__":
    main()
