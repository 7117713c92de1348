"""Whatever is done to an adapter's files, they load as finite numbers of the right shapes or are refused."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strangers import CONFIG, PAYLOAD, PROBES, REPORT, ROUTER, members, sealed, write, zipped

from asa_adapter import AdapterFormatError, ASAAdapter, ASAConfig


def valid(adapter: ASAAdapter) -> None:
    """Asserts finite arrays of the right shapes, by which decisions can be made."""
    config, k = adapter.config, len(adapter.config.domains)
    arrays = {
        "v_global": (adapter.vectors.v_global, (config.hidden_size,)),
        "v_domain": (adapter.vectors.v_domain, (k, config.hidden_size)),
        "router": (adapter.router.linear(config.domains).weight, (k, config.hidden_size)),
        "probes": (adapter.probes.linear(config.domains).weight, (k, config.hidden_size)),
        "direction": (adapter._controller.direction, (k, config.hidden_size)),
    }
    for name, (array, shape) in arrays.items():
        assert tuple(array.shape) == shape, name
        assert bool(torch.isfinite(array).all()), name
    decisions = adapter.decide(torch.ones(3, config.hidden_size))
    assert len(decisions) == 3
    assert all(0 <= d.p_tool <= 1 and d.gate in (-1, 0, 1) for d in decisions)


def loads_or_is_refused(folder: Path, files: dict[str, bytes]) -> None:
    write(folder, files)
    adapter, refused = None, ""
    try:
        adapter = ASAAdapter.from_pretrained(folder)
    except AdapterFormatError as error:
        refused = str(error)
    assert adapter is not None or refused
    if adapter is not None:
        valid(adapter)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A change of some bytes: flipped, cut out, doubled, or put in."""
    kind = draw(st.sampled_from(["flip", "cut", "double", "insert", "truncate", "zeros"]))
    place, length = draw(st.floats(0, 1)), draw(st.integers(1, 64))
    extra = draw(st.binary(min_size=1, max_size=16))

    def change(content: bytes) -> bytes:
        start = int(place * max(len(content) - 1, 0))
        before, part, after = content[:start], content[start : start + length], content[start + length :]
        changed = {
            "flip": bytes(b ^ extra[i % len(extra)] for i, b in enumerate(part)),
            "cut": b"",
            "double": part + part,
            "insert": extra + part,
            "zeros": bytes(len(part)),
            "truncate": b"",
        }[kind]
        return before + changed + (b"" if kind == "truncate" else after)

    return change


mutations = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.filterwarnings("ignore:asa_config.json")
@pytest.mark.parametrize("name", [CONFIG, *PAYLOAD])
@mutations
@given(change=damage())
def test_any_damage_to_any_file_is_refused(
    folder: Path, sound: dict[str, bytes], name: str, change: Callable[[bytes], bytes]
) -> None:
    content = change(sound[name])
    assume(content != sound[name])
    write(folder, {**sound, name: content})
    try:
        ASAAdapter.from_pretrained(folder)
    except AdapterFormatError:
        return
    # What means the same may pass: other ends of lines, spaces in the config, another name for a field that was null.
    assert name in (CONFIG, REPORT)
    if name == REPORT:
        assert json.loads(content.decode("utf-8-sig")) == json.loads(sound[name])
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ASAConfig.from_json(content.decode()) == ASAConfig.from_json(sound[name].decode())


@pytest.mark.parametrize("name", PAYLOAD)
@mutations
@given(change=damage())
def test_any_damage_under_right_checksums_loads_as_numbers_or_is_refused(
    folder: Path, sound: dict[str, bytes], name: str, change: Callable[[bytes], bytes]
) -> None:
    loads_or_is_refused(folder, sealed({**sound, name: change(sound[name])}))


@pytest.mark.parametrize("name", [ROUTER, PROBES])
@mutations
@given(change=damage(), index=st.integers(0, 100))
def test_any_damage_inside_a_sound_zip_loads_as_numbers_or_is_refused(
    folder: Path, sound: dict[str, bytes], name: str, change: Callable[[bytes], bytes], index: int
) -> None:
    parts = members(sound[name])
    member = sorted(parts)[index % len(parts)]
    loads_or_is_refused(folder, sealed({**sound, name: zipped({**parts, member: change(parts[member])})}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, part in inner for found in places(part, (*path, key))]


@st.composite
def edits(draw: st.DrawFn) -> Callable[[Any], None]:
    """A change of a JSON value: some part of it replaced, removed, or put in the place of another."""
    kind = draw(st.sampled_from(["replace", "remove", "swap"]))
    first, second, value = draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6)), draw(json_values)

    def change(document: Any) -> None:
        found = places(document)
        *way, last = found[first % len(found)]
        other = document
        for key in found[second % len(found)]:
            other = other[key]
        other = json.loads(json.dumps(other))
        for key in way:
            document = document[key]
        if kind == "remove":
            del document[last]
        else:
            document[last] = value if kind == "replace" else other

    return change


@pytest.mark.parametrize("name", [ROUTER, PROBES])
@mutations
@given(change=edits())
def test_any_edit_of_a_skops_schema_loads_as_numbers_or_is_refused(
    folder: Path, sound: dict[str, bytes], name: str, change: Callable[[Any], None]
) -> None:
    parts = members(sound[name])
    schema = json.loads(parts["schema.json"])
    change(schema)
    parts["schema.json"] = json.dumps(schema).encode()
    loads_or_is_refused(folder, sealed({**sound, name: zipped(parts)}))


@pytest.mark.filterwarnings("ignore:asa_config.json")
@mutations
@given(change=edits())
def test_any_edit_of_the_config_loads_as_numbers_or_is_refused(
    folder: Path, sound: dict[str, bytes], change: Callable[[Any], None]
) -> None:
    config = json.loads(sound[CONFIG])
    change(config)
    loads_or_is_refused(folder, sealed({**sound, CONFIG: json.dumps(config).encode()}, files=config.get("files", {})))
