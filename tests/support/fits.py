"""Adapters fitted at a layer that is given, where it does not matter which is best."""

from collections.abc import Sequence
from typing import Any

from asa_adapter import ASAAdapter, ASAConfig, Probes, Router, SteeringVectors
from asa_adapter.data.prompts import row_domain
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
