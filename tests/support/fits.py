"""Adapters fitted at a layer that is given, where it does not matter which is best."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from asa_adapter import ASAAdapter, ASAConfig, Probes, Router, SteeringVectors
from asa_adapter.data.prompts import encode_rows
from asa_adapter.data.rows import row_domain
from asa_adapter.matching.state_kinds import kind_of, state_kind_fields
from asa_adapter.states import collect_hidden_states


def fitted_at(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], layer: int, **fields: Any) -> ASAAdapter:
    """An adapter that steers one layer, and whose probes read it and the one before.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        rows: labelled rows to fit on.
        layer: index of the steered block; -2 is the last but one.
        fields: further fields of the config.
    """
    labels, names = [int(row["label"]) for row in rows], [row_domain(row) for row in rows]
    collected = collect_hidden_states(model, tokenizer, rows, progress=False).states
    layer %= len(collected)
    states, domains = collected[layer], tuple(sorted(set(names)))
    config = ASAConfig(
        hidden_size=states.shape[1],
        num_layers=len(collected),
        layer=layer,
        read_layers=(layer - 1, layer),
        domains=domains,
        residual_norm=float(states.norm(dim=1).mean()),
        model_type=model.config.model_type,
        **fields,
    )
    probes = Probes.averaged([Probes.fit(collected[read], labels, names) for read in config.read_layers])
    return ASAAdapter(config, SteeringVectors.fit(states, labels, names, domains), Router.fit(states, names), probes)


def kinds_fitted_at(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    layer: int,
    by_state: Mapping[str, Mapping[str, float]],
    **fields: Any,
) -> ASAAdapter:
    """The same with probes and directions for each kind of state in the rows, whose rules differ `by_state`.

    Raises:
        ValueError: the tokenizer's chat template does not tell the kinds of the rows apart.
    """
    told = state_kind_fields(tokenizer, rows, encode_rows(tokenizer, rows), None)
    if len(told["states"]) < 2:
        raise ValueError(f"the rows are told apart as {told['states']}; expected both kinds")
    every, *apart = (
        fitted_at(model, tokenizer, some, layer, **fields)
        for some in (rows, *([row for row in rows if kind_of(row) == state] for state in told["states"]))
    )
    own = dict(zip(told["states"], apart, strict=True))
    vectors = {state: one.vectors for state, one in own.items()}
    probes = {state: one.probes for state, one in own.items()}
    return ASAAdapter(
        dataclasses.replace(every.config, **told, by_state={state: dict(rule) for state, rule in by_state.items()}),
        dataclasses.replace(every.vectors, by_state=vectors),
        every.router,
        Probes(every.probes.pooled_, every.probes.by_domain_, probes),
    )
