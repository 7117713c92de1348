import json
from typing import Any

import numpy as np
import pytest
import reference as reference
import torch

from asa_adapter import AdapterFormatError, SteeringVectors

NAMES = ["math", "code", "search"]


def calibration(seed: int = 0, rows: int = 60, width: int = 7) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """States whose classes lie apart in another direction in each domain."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    domains = [NAMES[i // 2 % 3] for i in range(rows)]
    apart = generator.normal(size=(3, width))
    states = generator.normal(size=(rows, width)) + 5.0
    states += labels[:, None] * apart[[NAMES.index(domain) for domain in domains]]
    return states.astype(np.float32), labels, domains


def unit_rows(seed: int, rows: int, width: int) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=(rows, width))
    return torch.tensor(values / np.linalg.norm(values, axis=1, keepdims=True), dtype=torch.float32)


def vectors() -> SteeringVectors:
    return SteeringVectors(unit_rows(1, 1, 4)[0], unit_rows(2, 3, 4))


# --- the vectors themselves


def test_vectors_are_float32_whatever_they_came_as() -> None:
    made = SteeringVectors(np.array([1.0, 0.0]), np.array([[0.0, 1.0]]))  # type: ignore[arg-type]
    assert (made.v_global.dtype, made.v_domain.dtype) == (torch.float32, torch.float32)


def test_zero_row_stands_for_a_domain_without_a_vector() -> None:
    assert SteeringVectors(torch.tensor([1.0, 0.0]), torch.zeros(2, 2)).v_domain.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("v_global", "v_domain", "message"),
    [
        (
            [[1.0, 0.0]],
            [[1.0, 0.0]],
            r"v_global has shape \(1, 2\) and v_domain \(1, 2\); expected \(D,\) and \(K, D\)",
        ),
        ([1.0, 0.0], [1.0, 0.0], r"v_domain \(2,\); expected \(D,\) and \(K, D\)"),
        ([1.0, 0.0], [[1.0, 0.0, 0.0]], r"v_global has shape \(2,\) and v_domain \(1, 3\)"),
        ([], np.zeros((1, 0)), "are empty; expected at least one dimension and one domain"),
        ([1.0, 0.0], np.zeros((0, 2)), "are empty; expected at least one dimension and one domain"),
        ([float("nan"), 1.0], [[1.0, 0.0]], "a steering vector holds NaN or infinity"),
        ([1.0, 0.0], [[float("inf"), 0.0]], "a steering vector holds NaN or infinity"),
        ([1.0, 0.0], [[0.0, 0.0], [float("nan"), 0.0]], "a steering vector holds NaN or infinity"),
        ([0.0, 0.0], [[1.0, 0.0]], "v_global has length 0; expected 1"),
        ([2.0, 0.0], [[1.0, 0.0]], "v_global has length 2; expected 1"),
        ([0.99, 0.0], [[1.0, 0.0]], "v_global has length 0.99; expected 1"),
        ([1.0, 0.0], [[1.0, 0.0], [0.0, 0.5]], r"v_domain\[1\] has length 0.5; expected 1, or 0 for no vector"),
        ([1.0, 0.0], [[1e-10, 0.0]], r"v_domain\[0\] has length 1e-10; expected 1, or 0 for no vector"),
    ],
)
def test_other_vectors_are_refused(v_global: Any, v_domain: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SteeringVectors(torch.tensor(v_global), torch.tensor(v_domain, dtype=torch.float32))


# --- fit


def test_fit_agrees_with_the_reference() -> None:
    states, labels, domains = calibration()
    fitted = SteeringVectors.fit(states, labels, domains, NAMES)
    v_global, v_domain = reference.directions(states.astype(np.float64), labels, domains, NAMES)
    np.testing.assert_allclose(fitted.v_global, v_global, atol=1e-6)
    np.testing.assert_allclose(fitted.v_domain, v_domain, atol=1e-6)


def test_direction_of_two_points_by_hand() -> None:
    fitted = SteeringVectors.fit([[1.0, 1.0], [4.0, 5.0]], [0, 1], ["a", "a"], ["a"])
    assert fitted.v_global.tolist() == pytest.approx([0.6, 0.8])


def test_rows_follow_the_order_of_the_names() -> None:
    states, labels, domains = calibration()
    one = SteeringVectors.fit(states, labels, domains, NAMES)
    other = SteeringVectors.fit(states, labels, domains, NAMES[::-1])
    assert torch.equal(one.v_domain.flip(0), other.v_domain)


@pytest.mark.parametrize("label", [0, 1])
def test_domain_with_one_class_has_a_zero_row(label: int) -> None:
    states, labels, domains = calibration()
    kept = [i for i in range(len(labels)) if domains[i] != "code" or labels[i] == label]
    domains = [domains[i] for i in kept]
    fitted = SteeringVectors.fit(states[kept], labels[kept], domains, NAMES)
    _, v_domain = reference.directions(states[kept].astype(np.float64), labels[kept], domains, NAMES)
    assert not v_domain[1].any()
    np.testing.assert_allclose(fitted.v_domain, v_domain, atol=1e-6)


def test_domain_without_rows_has_a_zero_row() -> None:
    states, labels, domains = calibration()
    assert not SteeringVectors.fit(states, labels, domains, [*NAMES, "new"]).v_domain[3].any()


def test_domain_whose_classes_coincide_has_a_zero_row() -> None:
    states, labels, domains = calibration()
    states[[domain == "code" for domain in domains]] = 3.0
    assert not SteeringVectors.fit(states, labels, domains, NAMES).v_domain[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_fit_takes_tensors(dtype: torch.dtype) -> None:
    states, labels, domains = calibration()
    tensor = torch.from_numpy(states).to(dtype)
    fitted = SteeringVectors.fit(tensor, torch.from_numpy(labels), domains, NAMES)  # type: ignore[arg-type]
    expected = reference.mean_difference(tensor.double().numpy(), labels)
    np.testing.assert_allclose(fitted.v_global, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("states", "labels"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], [1, 1]),
        ([[1.0, 2.0], [3.0, 4.0]], [0, 0]),
        ([[1.0, 2.0], [1.0, 2.0]], [0, 1]),
        ([[100.0, 2.0], [100.00001, 2.0]], [0, 1]),
    ],
    ids=["ones only", "zeros only", "same states", "rounding apart"],
)
def test_fit_without_a_direction_is_refused(states: list[list[float]], labels: list[int]) -> None:
    with pytest.raises(ValueError, match="gives no direction: it needs rows of both labels whose states differ"):
        SteeringVectors.fit(states, labels, ["a", "a"], ["a"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_fit_on_states_that_are_not_finite_is_refused_as_such(value: float) -> None:
    states, labels, domains = calibration()
    states[3, 2] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        SteeringVectors.fit(states, labels, domains, NAMES)


@pytest.mark.parametrize(("labels", "domains"), [(5, 60), (60, 5)], ids=["labels", "domains"])
def test_fit_on_differing_lengths_is_refused(labels: int, domains: int) -> None:
    states, all_labels, all_domains = calibration()
    with pytest.raises(ValueError, match="states"):
        SteeringVectors.fit(states, all_labels[:labels], all_domains[:domains], NAMES)


# --- mixed


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 1.0])
def test_mixed_agrees_with_the_reference(beta: float) -> None:
    made = vectors()
    expected = reference.mixed(made.v_global.double().numpy(), made.v_domain.double().numpy(), beta)
    np.testing.assert_allclose(made.mixed(beta), expected, atol=1e-6)


def test_mixed_by_hand() -> None:
    made = SteeringVectors(torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0]]))
    [row] = made.mixed(0.75).tolist()
    assert row == pytest.approx([0.9486833, 0.3162278])  # (3, 1) / sqrt(10)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_mixed_falls_back_to_the_global_direction(beta: float) -> None:
    made = SteeringVectors(torch.tensor([0.6, 0.8]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    expected = reference.mixed(np.array([0.6, 0.8]), np.array([[0.0, 0.0], [1.0, 0.0]]), beta)
    assert expected[0].tolist() == [0.6, 0.8]
    np.testing.assert_allclose(made.mixed(beta), expected, atol=1e-6)


def test_mixed_directions_that_cancel_are_refused() -> None:
    made = SteeringVectors(torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"with beta 0\.5 the global direction and a domain's cancel out"):
        made.mixed(0.5)


def test_opposite_directions_that_do_not_cancel_are_mixed() -> None:
    made = SteeringVectors(torch.tensor([1.0, 0.0]), torch.tensor([[-1.0, 0.0]]))
    assert made.mixed(0.25).tolist() == [[-1.0, 0.0]]


# --- the file


def raw(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file with any header (a text or something that JSON can write)."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[Any], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


GLOBAL, DOMAIN = np.float32([0.6, 0.8]), np.float32([[1, 0], [0, 1], [0, 0]])
HEADER = {"v_global": entry("F32", [2], 0, 8), "v_domain": entry("F32", [3, 2], 8, 32)}
DATA = GLOBAL.tobytes() + DOMAIN.tobytes()


def read(content: bytes) -> SteeringVectors:
    return SteeringVectors.from_bytes(content, hidden_size=2, domains=3)


def test_round_trip_keeps_every_bit() -> None:
    made = vectors()
    back = SteeringVectors.from_bytes(made.to_bytes(), hidden_size=4, domains=3)
    assert torch.equal(back.v_global, made.v_global)
    assert torch.equal(back.v_domain, made.v_domain)


def test_file_written_by_hand_is_read() -> None:
    back = read(raw(HEADER, DATA))
    assert back.v_global.tolist() == GLOBAL.tolist()
    assert back.v_domain.tolist() == DOMAIN.tolist()


def test_metadata_in_the_header_is_ignored() -> None:
    assert read(raw({"__metadata__": {"format": "pt"}, **HEADER}, DATA)).v_global.tolist() == GLOBAL.tolist()


def test_file_holds_nothing_but_the_two_tensors() -> None:
    content = vectors().to_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert {name: (value["dtype"], value["shape"]) for name, value in header.items() if name != "__metadata__"} == {
        "v_global": ("F32", [4]),
        "v_domain": ("F32", [3, 4]),
    }


DOUBLE_NAME = (
    f'{{"v_global": {json.dumps(entry("F32", [2], 0, 8))}, "v_global": {json.dumps(entry("F32", [2], 0, 8))}, '
    f'"v_domain": {json.dumps(entry("F32", [3, 2], 8, 32))}}}'
)


@pytest.mark.parametrize(
    "content",
    [
        raw({**HEADER, "more": entry("F32", [1], 32, 36)}, DATA + bytes(4)),
        raw({"v_global": HEADER["v_global"]}, DATA[:8]),
        raw({"v_global": HEADER["v_global"], "V_domain": HEADER["v_domain"]}, DATA),
        raw({**HEADER, "v_domain": entry("F32", [2, 3], 8, 32)}, DATA),
        raw({**HEADER, "v_domain": entry("F32", [6], 8, 32)}, DATA),
        raw({**HEADER, "v_domain": entry("F32", [4, 2], 8, 40)}, DATA + bytes(8)),
        raw({**HEADER, "v_domain": entry("I32", [3, 2], 8, 32)}, DATA),
        raw({**HEADER, "v_domain": entry("F16", [3, 2], 8, 20)}, DATA[:20]),
        raw({"v_global": entry("F64", [2], 0, 16), "v_domain": entry("F32", [3, 2], 16, 40)}, DATA + bytes(8)),
        raw({**HEADER, "v_domain": entry("F32", [10**12, 10**12], 8, 32)}, DATA),
        raw(DOUBLE_NAME, DATA),
        raw({}),
        raw({"__metadata__": {}}),
    ],
    ids=[
        "extra tensor", "tensor missing", "other name", "transposed", "flat", "more domains", "integers", "half",
        "double", "huge", "double name", "none", "metadata only",
    ],
)  # fmt: skip
def test_other_tensors_are_refused(content: bytes) -> None:
    with pytest.raises(AdapterFormatError, match=r"^steering_vectors\.safetensors: holds .*; expected .* in float32$"):
        read(content)


def test_a_giant_header_is_refused_unread() -> None:
    header = {**HEADER, **{f"t{i}": entry("F32", [0], 32, 32) for i in range(2000)}}
    with pytest.raises(AdapterFormatError, match=r"^steering_vectors\.safetensors: its header has .*at most 100000$"):
        read(raw(header, DATA))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 100,
        raw("not JSON", DATA),
        raw("[]", DATA),
        raw("null", DATA),
        raw('{"v_global": 1}', DATA),
        raw('{"v_global": {"dtype": "F32"}}', DATA),
        raw("\udcff".encode("utf-8", "surrogatepass").decode("latin-1"), DATA),
        raw("[" * 100_000, DATA),
        b"\x80\x04\x95K\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        b"PK\x03\x04" + bytes(100),
    ],
    ids=[
        "nothing", "zeros", "ones", "text", "list", "null", "number", "no shape", "not UTF-8", "deep", "pickle", "zip",
    ],
)  # fmt: skip
def test_file_without_readable_header_is_refused(content: bytes) -> None:
    with pytest.raises(AdapterFormatError, match=r"^steering_vectors\.safetensors: "):
        read(content)


def test_file_that_was_cut_anywhere_is_refused() -> None:
    content = vectors().to_bytes()
    for length in range(len(content)):
        with pytest.raises(AdapterFormatError, match=r"^steering_vectors\.safetensors: "):
            SteeringVectors.from_bytes(content[:length], hidden_size=4, domains=3)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (HEADER, DATA + b"x"),
        ({"v_global": entry("F32", [2], 0, 8), "v_domain": entry("F32", [3, 2], 0, 24)}, DATA[:24]),
        ({"v_global": entry("F32", [2], 0, 8), "v_domain": entry("F32", [3, 2], 12, 36)}, DATA + bytes(4)),
        ({"v_global": entry("F32", [2], 0, 8), "v_domain": entry("F32", [3, 2], 8, 2**60)}, DATA),
    ],
    ids=["more bytes", "overlap", "gap", "far offset"],
)
def test_data_that_does_not_fit_the_header_is_refused(header: dict[str, Any], data: bytes) -> None:
    with pytest.raises(AdapterFormatError, match=r"^steering_vectors\.safetensors: "):
        read(raw(header, data))


@pytest.mark.parametrize(
    ("v_global", "v_domain", "message"),
    [
        ([float("nan"), 1], DOMAIN, "a steering vector holds NaN or infinity"),
        (GLOBAL, [[1, 0], [0, float("inf")], [0, 0]], "a steering vector holds NaN or infinity"),
        ([0, 0], DOMAIN, "v_global has length 0; expected 1"),
        (GLOBAL, [[1, 0], [0, 3], [0, 0]], r"v_domain\[1\] has length 3; expected 1, or 0"),
        ([1e-40, 0], DOMAIN, "v_global has length .*; expected 1"),
    ],
    ids=["NaN", "infinity", "zero", "long", "subnormal"],
)
def test_stored_vectors_are_checked(v_global: Any, v_domain: Any, message: str) -> None:
    data = np.float32(v_global).tobytes() + np.float32(v_domain).tobytes()
    with pytest.raises(AdapterFormatError, match=f"^steering_vectors.safetensors: {message}"):
        read(raw(HEADER, data))
