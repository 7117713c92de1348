"""Which kind of probe the plain gate asks."""

import numpy as np
import pytest

from asa_adapter.measurement.labelled_states import LabelledStates
from asa_adapter.search.plain_probe import plain_probe_first


def rows(count: int, domains: int, kinds: int | None = None) -> LabelledStates:
    names = [f"domain {i % domains}" for i in range(count)]
    told = None if kinds is None else [f"kind {i // domains % kinds}" for i in range(count)]
    return LabelledStates(np.zeros((count, 2), dtype=np.float32), np.zeros(count, dtype=np.int64), names, kinds=told)


@pytest.mark.parametrize(("count", "domains", "first"), [(199, 4, "pooled"), (200, 4, "domain"), (200, 5, "pooled")])
def test_the_pooled_probe_is_plain_where_domains_have_fewer_than_a_hundred_rows(
    count: int, domains: int, first: str
) -> None:
    assert plain_probe_first(("domain", "pooled"), [rows(count, domains)] * 2)[0] == first


def test_each_kind_of_state_has_probes_of_its_own_that_share_the_rows() -> None:
    assert plain_probe_first(("domain", "pooled"), [rows(400, 4, kinds=2)]) == ("pooled", "domain")
    assert plain_probe_first(("domain", "pooled"), [rows(800, 4, kinds=2)]) == ("domain", "pooled")


def test_what_was_asked_for_alone_stays_alone_and_its_order_stays_where_rows_are_many() -> None:
    assert plain_probe_first(("domain",), [rows(8, 4)]) == ("domain",)
    assert plain_probe_first(("pooled", "domain"), [rows(800, 4)]) == ("pooled", "domain")
