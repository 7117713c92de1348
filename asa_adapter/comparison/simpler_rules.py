"""The simpler rules: what each does to the rows of a split, and what it leaves to VALID to choose.

A rule is a function that returns its candidates. They differ in one thing, a wording or a strength; where a threshold
was chosen by scores on VALID already, there is one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asa_adapter.adapter import ASAAdapter
from asa_adapter.answering.forcing import Forcing
from asa_adapter.answering.leads import Variant
from asa_adapter.choice import other_actions
from asa_adapter.choice.objective import Objective
from asa_adapter.comparison.thresholds import fitted_thresholds, needed_by_threshold, thresholds_in_words
from asa_adapter.comparison.wordings import BEGINNINGS, NO, SENTENCES, YES, with_question, with_sentence
from asa_adapter.measurement.known_splits import known_splits
from asa_adapter.measurement.measured_decisions import decisions
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.measurement.word_classifier import word_scores
from asa_adapter.tool_calls.parser import first_token_ids

# Biases to try, in logits; the one without limit is the rule "force".
BIASES = tuple(amount for amount in other_actions.BIASES if np.isfinite(amount))


class NotApplicableError(ValueError):
    """A rule that cannot be tried with this model; the message says why."""


class Treatment(NamedTuple):
    """What a rule does with the rows of one split.

    Attributes:
        measured: the rows as the rule asks them.
        variant: what acts on the answers.
        before: the rows as they are asked first, in one forward pass; None where they are not.
    """

    measured: Measurements
    variant: Variant = None
    before: Measurements | None = None


class Candidate(NamedTuple):
    """A rule with all that it has to choose.

    Attributes:
        choice: that choice, in words; "" where there is none.
        treat: takes the name of a split.
    """

    choice: str
    treat: Callable[[str], Treatment]


class RuleSetup(NamedTuple):
    """What rules are made of.

    Attributes:
        measured: what the model does on the rows.
        adapter: the adapter whose gate decides.
        objective: what thresholds are chosen by.
        split: the split to judge on, beside VALID.
        seed: seed of the classifier of words.
    """

    measured: Measurements
    adapter: ASAAdapter
    objective: Objective
    split: str
    seed: int

    def gates(self, split: str) -> NDArray[np.int64]:
        """(N,) gates of the adapter."""
        adapter = self.adapter.for_split(split)
        return np.array([decision.gate for decision in decisions(self.measured, split, adapter)])

    def forced(self, amounts: NDArray[Any]) -> Treatment:
        """What is added to the logits of the tokens with which calls begin, (N,)."""
        evaluation = self.measured.evaluation
        tokens = evaluation.parser.opening_ids(evaluation.tokenizer)
        return Treatment(self.measured, Forcing(tokens, np.asarray(amounts, dtype=np.float32)))

    def by_scores(
        self,
        scores: Callable[[str], NDArray[np.float64]],
        *,
        by_domain: bool = False,
        before: Measurements | None = None,
    ) -> list[Candidate]:
        """A threshold, chosen on VALID, decides; the opening is forced or forbidden.

        Args:
            scores: takes the name of a split, and returns (N,) scores, higher where a tool is likelier to be needed.
            by_domain: whether each domain has a threshold of its own.
            before: as in `Treatment`.
        """
        measured = self.measured
        labels, groups = measured.labels("valid"), measured.groups("valid")
        domains = measured.domains("valid") if by_domain else None
        limits = fitted_thresholds(self.objective, scores("valid"), labels, groups, domains)

        def treat(split: str) -> Treatment:
            decided = needed_by_threshold(scores(split), limits, measured.domains(split))
            return self.forced(np.where(decided, np.inf, -np.inf))._replace(before=before)

        return [Candidate(thresholds_in_words(limits), treat)]


def sentence(setup: RuleSetup) -> list[Candidate]:
    """A sentence in the system prompt, or in the user's turn where the chat template has no system prompt."""
    role = next((role for role in ("system", "user") if _shows_sentence(setup, role)), None)
    if role is None:
        raise NotApplicableError("the chat template shows a sentence neither in a system turn nor in a user turn")

    def of(text: str) -> Candidate:
        changed = setup.measured.changed(lambda row: with_sentence(row, text, role))
        return Candidate(f"in the {role} turn: {text}", lambda split: Treatment(changed))

    return [of(text) for text in SENTENCES]


def _shows_sentence(setup: RuleSetup, role: str) -> bool:
    """Whether prompts show the rule's sentence in a turn of this role."""
    evaluation, row = setup.measured.evaluation, setup.measured.rows("valid")[0]
    try:
        [ids] = evaluation.prompts([with_sentence(row, SENTENCES[0], role)])
    except ValueError:
        return False  # a template that refuses a system turn
    return "".join(SENTENCES[0].split()) in "".join(str(evaluation.tokenizer.decode(ids)).split())


def threshold(setup: RuleSetup) -> list[Candidate]:
    """A threshold on the model's own probability that its answer begins with a call."""
    return setup.by_scores(lambda split: _opening_probability(setup, split))


def threshold_per_domain(setup: RuleSetup) -> list[Candidate]:
    """The same with a threshold for each domain; the domain is the row's own, which a server would have to know."""
    if len(set(setup.measured.domains("valid"))) < 2:
        raise NotApplicableError("there is one domain only")
    return setup.by_scores(lambda split: _opening_probability(setup, split), by_domain=True)


def _opening_probability(setup: RuleSetup, split: str) -> NDArray[np.float64]:
    """(N,) probability of the bare model, by which rules decide, that an answer begins with a call."""
    return setup.measured.first_tokens(split, []).probability[0].astype(np.float64)


def force(setup: RuleSetup) -> list[Candidate]:
    """The adapter's gate decides; the opening is forced (+1) or forbidden (-1)."""
    return [Candidate("", lambda split: setup.forced(_unlimited_bias(setup.gates(split))))]


def _unlimited_bias(gates: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) biases without limit, by which a rule forces or forbids a call where a gate is open."""
    return np.select([gates > 0, gates < 0], [np.inf, -np.inf], 0.0)


def bias(setup: RuleSetup) -> list[Candidate]:
    """The adapter's gate decides; times a strength, it is added to the logits of the openings."""

    def of(amount: float) -> Candidate:
        return Candidate(f"strength {amount:g}", lambda split: setup.forced(amount * setup.gates(split)))

    return [of(amount) for amount in BIASES]


def soft(setup: RuleSetup) -> list[Candidate]:
    """The adapter's gate decides; the answer begins with a sentence that says so."""
    gates = {split: setup.gates(split) for split in ("valid", setup.split)}

    def of(pair: Sequence[str]) -> Candidate:
        says = {1: pair[0], -1: pair[1], 0: ""}
        begun = {split: [says[int(gate)] for gate in found] for split, found in gates.items()}
        changed = setup.measured.changed(lambda row: row, begun)
        return Candidate(" or ".join(text.strip() for text in pair), lambda split: Treatment(changed))

    return [of(pair) for pair in BEGINNINGS]


def ask_first(setup: RuleSetup) -> list[Candidate]:
    """The model is asked first whether a tool is needed; a threshold on p(Yes) beside p(No) decides."""
    tokenizer = setup.measured.evaluation.tokenizer
    yes, no = (set(first_token_ids(tokenizer, words)) for words in (YES, NO))
    if not yes - no or not no - yes:
        raise NotApplicableError("the tokenizer begins Yes and No with the same token")
    asked = setup.measured.changed(with_question)

    def scores(split: str) -> NDArray[np.float64]:
        p_yes, p_no = asked.probabilities(split, [sorted(yes - no), sorted(no - yes)]).astype(np.float64)
        found: NDArray[np.float64] = p_yes / np.maximum(p_yes + p_no, 1e-30)
        return found

    return setup.by_scores(scores, before=asked)


def words(setup: RuleSetup) -> list[Candidate]:
    """A classifier of the words, fitted on the rows that the adapter knows; a threshold on its probability decides."""

    def scores(split: str) -> NDArray[np.float64]:
        known = [row for name in known_splits(setup.adapter, split) for row in setup.measured.rows(name)]
        return word_scores(known, setup.measured.rows(split), setup.seed)

    try:
        found = {split: scores(split) for split in ("valid", setup.split)}
    except ValueError as error:
        raise NotApplicableError(f"a classifier of words cannot be fitted: {error}") from error
    return setup.by_scores(lambda split: found[split])


# In the order of the report: what needs the least first.
RULES: dict[str, Callable[[RuleSetup], list[Candidate]]] = {
    "sentence": sentence,
    "threshold": threshold,
    "threshold_per_domain": threshold_per_domain,
    "ask_first": ask_first,
    "words": words,
    "soft": soft,
    "bias": bias,
    "force": force,
}
