"""Which kind of probe the plain gate asks: those of the domains, or the pooled one where those have few rows each."""

from collections import Counter
from collections.abc import Sequence

from asa_adapter.measurement.labelled_states import LabelledStates

# Rows for each probe of a domain, or of a domain and kind of state, from which it is asked rather than the pooled one.
_ROWS_OF_A_PROBE = 100


def plain_probe_first(probes: Sequence[str], known: Sequence[LabelledStates]) -> tuple[str, ...]:
    """Kinds of probe, the plain gate's first: "pooled" before "domain" where a domain's probe has too few rows.

    Probes of some eighty rows each read other rows of the same wordings as well as the pooled one does, and new
    wordings worse; with twice as many they read both better.

    Args:
        probes: kinds of probe that take part, in the order that was asked for.
        known: the rows as given on which router and probes are fitted, of one layer each.
    """
    each = Counter(
        (domain, kind) for part in known for domain, kind in zip(part.domains, part.kinds or part.domains, strict=True)
    )
    few = sum(each.values()) < _ROWS_OF_A_PROBE * len(each)
    return tuple(sorted(probes, key=lambda kind: kind != "pooled")) if few else tuple(probes)
