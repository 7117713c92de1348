"""What a training runs is counted in rows of its first stage."""

from dataclasses import replace

from asa_adapter import ASATrainingArguments
from asa_adapter.training.workload import workload


def test_a_training_is_as_long_as_the_tokens_that_it_runs() -> None:
    prompts = {name: [[i] * 10 for i in range(rows)] for name, rows in {"cal": 2, "train": 4, "valid": 4}.items()}
    arguments = ASATrainingArguments(alphas=(0.5, 1.0), betas=(1.0,), finalists=3, max_new_tokens=5)
    screens = 40 + 2 * 40 + ((12 + 6) * 4 + (2 * 3 + 3 * 2) * 4) / 2
    answers = 40 + 2.5 * 4 * 4 * 5  # a decoded token takes longer
    tools = 4 * 40
    assert workload(prompts, 6, arguments).in_rows == 10 * (100 + screens + answers + tools + 30) / 100
    unvaried = replace(arguments, vary_tools=False)
    assert workload(prompts, 6, unvaried).in_rows == 10 * (100 + screens + answers + tools) / 100


def test_pushes_that_drop_out_of_the_race_are_not_counted() -> None:
    prompts = {name: [[i] * 10 for i in range(400)] for name in ("cal", "train", "valid")}
    raced, whole = (
        workload(prompts, 25, ASATrainingArguments(alphas=(0.5, 1.0), betas=(0.0, 1.0), exhaustive=exhaustive)).in_rows
        for exhaustive in (False, True)
    )
    # 100 pushes for 60 rows, the 33 best of them for 90 more, and 16, four for each finalist, for the last 250.
    pushes = 60 * (100 + 50) + 90 * 33 + 250 * 16
    assert round((whole - raced) * 10) == round((400 * (100 + 50) - pushes) / 2)


def test_tokens_that_prompts_begin_with_count_once() -> None:
    prompts = {name: [[*range(100), 200 + i] for i in range(10)] for name in ("cal", "train", "valid")}
    alone = {name: [[i, *range(i, 100 + i)] for i in range(10)] for name in ("cal", "train", "valid")}
    arguments = ASATrainingArguments()
    assert workload(prompts, 1, arguments).in_rows > 2 * workload(alone, 1, arguments).in_rows
