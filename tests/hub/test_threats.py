"""Strangers' adapters: whatever a folder holds, it loads as finite numbers of the right shapes, or is refused.

One test for each threat, through `ASAAdapter.from_pretrained`. Checksums protect against accidents, not against a
stranger, who rewrites them: `sealed` does as much, so that the reading code is met and not the checksum alone.
test_mutations damages the files in every other way; the details stand in test_files, test_config, test_audit,
test_classifiers and test_vectors.
"""

import ast
import io
import json
import os
import pickle
import re
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
import torch
from models import DEPTH, WIDTH, random_model
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from strangers import (
    CONFIG,
    DOMAINS,
    PAYLOAD,
    PROBES,
    REPORT,
    ROUTER,
    VECTORS,
    members,
    sealed,
    sound_files,
    write,
    zipped,
)

import asa_adapter
from asa_adapter import AdapterFormatError, ASAAdapter, IncompatibleModelError
from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.hub.folder import SIZE_LIMITS

SECONDS, MEBIBYTES = 5.0, 300.0


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return sound_files(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound: dict[str, bytes], tmp_path: Path) -> Path:
    write(tmp_path, sound)
    return tmp_path


@contextmanager
def bounded(seconds: float = SECONDS, mebibytes: float = MEBIBYTES) -> Iterator[None]:
    """Fails where what is inside takes longer (of the processor's time) or holds more memory at once."""
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
    finally:
        took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    assert took < seconds, f"it took {took:.1f} s"
    assert peak < mebibytes, f"it held {peak:.0f} MiB"


def refused(folder: Path, message: str) -> None:
    """Asserts that a folder is refused with a message of its own, soon, and without much memory."""
    with bounded(), pytest.raises(AdapterFormatError, match=message):
        ASAAdapter.from_pretrained(folder)


class Hostile:
    """An object whose unpickling makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.target), "w"))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# --- threat: pickles, by whatever name


def pickled(target: Path) -> dict[str, bytes]:
    torch_file, joblib_file = io.BytesIO(), io.BytesIO()
    torch.save(Hostile(target), torch_file)
    joblib.dump(Hostile(target), joblib_file)
    objects = io.BytesIO()
    np.save(objects, np.array([Hostile(target)], dtype=object), allow_pickle=True)
    return {
        "pickle": pickle.dumps(Hostile(target)),
        "joblib": joblib_file.getvalue(),
        "torch": torch_file.getvalue(),
        "numpy": objects.getvalue(),
        "pickle in a zip": zipped({"schema.json": pickle.dumps(Hostile(target))}),
        "skops": skops.io.dumps(Hostile(target)),
    }


@pytest.mark.parametrize("kind", ["pickle", "joblib", "torch", "numpy", "pickle in a zip", "skops"])
@pytest.mark.parametrize("name", [CONFIG, *PAYLOAD])
def test_threat_pickle_under_our_names(
    folder: Path, sound: dict[str, bytes], name: str, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("target") / "ran"
    content = pickled(target)[kind]
    target.unlink(missing_ok=True)
    write(folder, {**sound, name: content} if name == CONFIG else sealed({**sound, name: content}))
    refused(folder, f"^{name}")
    assert not target.exists()


def test_threat_pickle_in_an_array_of_objects(
    folder: Path, sound: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("target") / "ran"
    parts = members(sound[ROUTER])
    array = next(name for name in parts if name != "schema.json")
    content = zipped({**parts, array: pickled(target)["numpy"]})
    target.unlink(missing_ok=True)
    write(folder, sealed({**sound, ROUTER: content}))
    refused(folder, "router.skops: refused: .* is an array of object")
    assert not target.exists()


def test_threat_pickle_beside_our_files_is_not_even_opened(folder: Path) -> None:
    for name in ("pytorch_model.bin", "router.pkl", "model.joblib", "adapter_model.bin", "modeling.py"):
        (folder / name).mkdir()  # to open one would fail
    assert ASAAdapter.from_pretrained(folder).config.domains == DOMAINS


# --- threat: trust, given blindly


PACKAGE = Path(asa_adapter.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_threat_no_module_can_unpickle_or_trust(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {node.attr if isinstance(node, ast.Attribute) else node.id for node in ast.walk(tree)
             if isinstance(node, ast.Attribute | ast.Name)}  # fmt: skip
    modules = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }
    keywords = {node.arg: ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not (names | modules) & {
        "pickle",
        "joblib",
        "dill",
        "cloudpickle",
        "marshal",
        "shelve",
        "get_untrusted_types",
    }
    called = {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__", "import_module"}
    assert "torch.load" not in ast.unparse(tree)
    assert keywords.get("trusted", "[]") == "[]"
    assert not keywords.keys() & {"trust_remote_code", "allow_pickle", "weights_only"}


# --- threat: other skops types, disguised or not


@pytest.mark.parametrize(
    "other",
    [
        make_pipeline(StandardScaler(), LogisticRegression()).fit([[0.0], [1.0]], [0, 1]),
        StandardScaler().fit(np.ones((3, WIDTH))),
        FunctionTransformer(np.log),
        {"router": LogisticRegression()},
        np.float64(1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_threat_another_estimator(folder: Path, sound: dict[str, bytes], other: Any) -> None:
    write(folder, sealed({**sound, ROUTER: skops.io.dumps(other)}))
    refused(folder, "router.skops: holds a .*; expected a LogisticRegression")


@pytest.mark.parametrize(
    "kind",
    [("MethodNode", "builtins", "str"), ("OperatorFuncNode", "operator", "attrgetter"), ("ObjectNode", "os", "system"),
     ("ConstructorFromReduceNode", "builtins", "open"), ("JsonNode", "os", "system")],
    ids=lambda kind: kind[0],
)  # fmt: skip
def test_threat_a_disguised_node(folder: Path, sound: dict[str, bytes], kind: tuple[str, str, str]) -> None:
    parts = members(sound[ROUTER])
    schema = json.loads(parts["schema.json"])
    schema["content"]["content"]["C"].update(zip(("__loader__", "__module__", "__class__"), kind, strict=True))
    write(folder, sealed({**sound, ROUTER: zipped({**parts, "schema.json": json.dumps(schema).encode()})}))
    refused(folder, f"router.skops: holds a {kind[2]}; expected a LogisticRegression")


# --- threat: bombs


def test_threat_zip_bomb(folder: Path, sound: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("schema.json", members(sound[ROUTER])["schema.json"])
        with archive.open("1.npy", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(2**20))
    write(folder, sealed({**sound, ROUTER: buffer.getvalue()}))
    refused(folder, "router.skops: unpacks to more than 128 MiB")


def test_threat_one_member_read_many_times(folder: Path, sound: dict[str, bytes]) -> None:
    parts = members(sound[PROBES])
    schema = json.loads(parts["schema.json"])
    pooled = json.dumps(schema["content"]["pooled"])
    file = schema["content"]["pooled"]["content"]["content"]["coef_"]["file"]
    copies = {}
    for i in range(300):  # each copy has ids of its own, so that skops would read 300 times 50 MB
        copies[f"d{i}"] = json.loads(re.sub(r'"__id__": (\d+)', lambda m, i=i: f'"__id__": {m[1]}{i:03}', pooled))
    schema["content"]["by_domain"]["content"] = copies
    parts |= {"schema.json": json.dumps(schema).encode(), file: npy(np.zeros((1, 6_000_000)))}
    write(folder, sealed({**sound, PROBES: zipped(parts)}))
    refused(folder, "probes.skops: refused: two arrays are said to be in ")


@pytest.mark.parametrize("member", ["../1.npy", "/etc/1.npy", "code.py"])
def test_threat_odd_member_names(folder: Path, sound: dict[str, bytes], member: str) -> None:
    write(folder, sealed({**sound, ROUTER: zipped({**members(sound[ROUTER]), member: b"x"})}))
    refused(folder, "router.skops: refused: a member is called ")


def test_threat_double_members(folder: Path, sound: dict[str, bytes]) -> None:
    buffer = io.BytesIO(sound[ROUTER])
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("schema.json", b"{}")
    write(folder, sealed({**sound, ROUTER: buffer.getvalue()}))
    refused(folder, "router.skops: refused: two members have the same name")


def test_threat_an_array_header_that_promises_terabytes(folder: Path, sound: dict[str, bytes]) -> None:
    parts = members(sound[ROUTER])
    array = next(name for name in parts if name != "schema.json")
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1000000000000), }".ljust(117) + b"\n"
    parts[array] = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    write(folder, sealed({**sound, ROUTER: zipped(parts)}))
    refused(folder, "router.skops: refused: .* holds 0 bytes; its header says 4000000000000")


def giant_header() -> bytes:
    entries = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(200_000)}
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def test_threat_a_giant_tensor_header(folder: Path, sound: dict[str, bytes]) -> None:
    write(folder, sealed({**sound, VECTORS: giant_header()}))
    refused(folder, "steering_vectors.safetensors: its header has .* bytes; expected at most 100000")


@pytest.mark.parametrize("name", [CONFIG, REPORT])
@pytest.mark.parametrize("text", ["[" * 900_000, '{"a":' * 180_000, "[" + "[]," * 290_000 + "[]]", "9" * 900_000])
def test_threat_json_that_is_deep_or_wide_or_long(folder: Path, sound: dict[str, bytes], name: str, text: str) -> None:
    files = {**sound, name: text.encode()}
    write(folder, files if name == CONFIG else sealed(files))
    refused(folder, f"^{name}: ")


def test_threat_the_largest_report_that_is_read(folder: Path, sound: dict[str, bytes]) -> None:
    text = '{"a": [' + "[]," * ((SIZE_LIMITS[REPORT] - 20) // 3) + "[]]}"
    write(folder, sealed({**sound, REPORT: text.encode()}))
    with bounded():
        ASAAdapter.from_pretrained(folder)


def test_threat_so_many_domains_that_they_take_hours(folder: Path, sound: dict[str, bytes]) -> None:
    write(folder, sealed(sound, domains=[str(i) for i in range(80_000)]))
    refused(folder, "there are 80000 domains; expected 1 to 256")


# --- threat: things that are no files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", [CONFIG, *PAYLOAD])
def test_threat_a_pipe_that_nobody_writes_to(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, f"^{name}: expected a regular file")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
@pytest.mark.parametrize("name", [CONFIG, *PAYLOAD])
def test_threat_an_endless_device(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    refused(folder, f"^{name}: expected a regular file")


@pytest.mark.parametrize("name", [CONFIG, *PAYLOAD])
def test_threat_a_huge_sparse_file(folder: Path, name: str) -> None:
    with (folder / name).open("r+b") as file:
        file.truncate(2**36)
    refused(folder, f"^{name}: {2**36} bytes; expected at most {SIZE_LIMITS[name]}$")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\x", "a/b", "\0"])
def test_threat_file_names_in_the_config_lead_nowhere(folder: Path, sound: dict[str, bytes], name: str) -> None:
    files = json.loads(sound[CONFIG])["files"]
    write(folder, sealed(sound, files={**files, name: "0" * 64}))
    assert ASAAdapter.from_pretrained(folder).config.layer == 2
    write(folder, sealed(sound, files={name: "0" * 64}))
    refused(folder, "asa_config.json: names no SHA-256 for steering_vectors.safetensors")


# --- threat: numbers


def tensors(v_global: np.ndarray, v_domain: np.ndarray) -> bytes:
    entries, data = {}, b""
    for name, array in (("v_global", v_global), ("v_domain", v_domain)):
        content = array.astype("<f4").tobytes()
        entries[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


UNIT = np.eye(WIDTH, dtype=np.float32)


@pytest.mark.parametrize(
    ("v_global", "v_domain", "changes", "message"),
    [
        (np.full(WIDTH, np.nan), UNIT[:2], {}, "holds NaN or infinity"),
        (UNIT[0], np.full((2, WIDTH), np.inf), {}, "holds NaN or infinity"),
        (UNIT[0] * 0, UNIT[:2], {}, "v_global has length 0; expected 1"),
        (UNIT[0] * 1e-40, UNIT[:2], {}, "v_global has length .*; expected 1"),
        (UNIT[0], UNIT[:2] * 7, {}, "has length 7; expected 1"),
        (UNIT[0], -UNIT[[0, 1]], {"beta": 0.5}, "with beta 0.5 the global direction and a domain's cancel out"),
        (UNIT[0], UNIT[:3], {}, "holds .*; expected"),
        (UNIT[0][:5], UNIT[:2, :5], {}, "holds .*; expected"),
        (UNIT[0].reshape(1, -1), UNIT[:2], {}, "holds .*; expected"),
    ],
    ids=["NaN", "infinite", "zero", "subnormal", "long", "cancelling", "one more domain", "narrow", "two dimensions"],
)
def test_threat_directions_that_are_none(
    folder: Path, sound: dict[str, bytes], v_global: Any, v_domain: Any, changes: Any, message: str
) -> None:
    write(folder, sealed({**sound, VECTORS: tensors(v_global, v_domain)}, **changes))
    refused(folder, message)


def classifier(**attributes: Any) -> LogisticRegression:
    fitted = LogisticRegression()
    shape = {
        "coef_": np.ones((1, WIDTH), np.float32),
        "intercept_": np.ones(1, np.float32),
        "classes_": np.array([0, 1]),
    }
    for name, value in {**shape, **attributes}.items():
        setattr(fitted, name, value)
    return fitted


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"coef_": np.full((1, WIDTH), np.nan)}, "coef_ holds NaN, infinity"),
        ({"coef_": np.full((1, WIDTH), 1e38)}, "coef_ holds NaN, infinity, or numbers beyond 1e30"),
        ({"coef_": np.ones((1, WIDTH + 1))}, "coef_ is float64 .*; expected floats of shape"),
        ({"coef_": np.ones((2, WIDTH))}, "coef_ is float64 .*; expected floats of shape"),
        ({"intercept_": np.array([np.inf])}, "intercept_ holds NaN, infinity"),
        ({"classes_": np.array([1, 0])}, "a probe's classes are .*; expected 0, 1"),
        ({"classes_": np.array(["no", "yes"])}, "a probe's classes are .*; expected 0, 1"),
        ({"classes_": np.array([0, 1, 2])}, "a probe's classes are .*; expected 0, 1"),
    ],
    ids=["NaN", "huge", "wide", "two rows", "infinite", "swapped", "names", "three"],
)
def test_threat_probes_that_are_none(
    folder: Path, sound: dict[str, bytes], attributes: dict[str, Any], message: str
) -> None:
    content = skops.io.dumps({"pooled": classifier(**attributes), "by_domain": {}})
    write(folder, sealed({**sound, PROBES: content}))
    refused(folder, f"probes.skops: {message}")


def test_threat_a_router_of_other_domains(folder: Path, sound: dict[str, bytes]) -> None:
    write(folder, sealed({**sound, ROUTER: skops.io.dumps(classifier(classes_=np.array(["a", "b"])))}))
    refused(folder, r"router.skops: its classes are \['a', 'b'\]; expected \['code', 'math'\]")


def test_threat_zero_scales_cannot_be_stored(folder: Path, sound: dict[str, bytes]) -> None:
    assert b"scale_" not in members(sound[PROBES])["schema.json"] + members(sound[ROUTER])["schema.json"]
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.eye(2), [0, 1])
    scaled[0].scale_ = np.zeros(2)
    write(folder, sealed({**sound, PROBES: skops.io.dumps({"pooled": scaled, "by_domain": {}})}))
    refused(folder, "probes.skops: holds a Pipeline; expected a LogisticRegression")


# --- threat: the config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 4}, "layer is 4; expected 0 to 3"),
        ({"layer": -1}, "layer is -1; expected 0 to 3"),
        ({"layer": 10**30}, "layer is 1000000000"),
        ({"layer": True}, "layer is True; expected an int"),
        ({"layer": "2"}, "layer is '2'; expected an int"),
        ({"num_layers": 0}, "num_layers 0; expected both at least 1"),
        ({"hidden_size": 10**12}, "steering_vectors.safetensors: holds "),
        ({"hidden_size": 16}, "steering_vectors.safetensors: holds "),
        ({"alpha": 1e6}, "alpha is 1000000.0; expected 0 to 1000"),
        ({"alpha": -1}, "alpha is -1.0; expected 0 to 1000"),
        ({"alpha": True}, "alpha is True; expected a number"),
        ({"alpha": [1]}, r"alpha is \[1\]; expected a number"),
        ({"alpha": 10**400}, "alpha is inf; expected a finite number"),
        ({"residual_norm": 1e300}, "is beyond the range of float32"),
        ({"residual_norm": 0}, "residual_norm is 0.0; expected more than 0"),
        ({"tau": 0.49}, "tau is 0.49; expected 0.5 to 1"),
        ({"beta": 1.5}, "beta is 1.5; expected 0 to 1"),
        ({"probe": "os.system"}, "probe is 'os.system'; expected 'domain' or 'pooled'"),
        ({"format_version": 2}, "format_version is 2; .*: upgrade asa_adapter"),
        ({"format_version": "1"}, "format_version is '1'; expected an int"),
        ({"format_version": 0}, "format_version is 0"),
        ({"domains": []}, "there are 0 domains"),
        ({"domains": "code"}, "domains is 'code'; expected a tuple of str"),
        ({"domains": ["code", "code"]}, "expected different names"),
        ({"domains": ["code", 1]}, "a domain is 1; expected a str"),
        ({"layer_path": "model.layers; import os"}, "layer_path is .*; expected a dotted path"),
        ({"base_model": "x" * 10_000}, "base_model has 10000 characters; expected 1 to 512"),
        ({"tools": "rm -rf"}, "tools is 'rm -rf'; expected a list of JSON-schema tools"),
        ({"files": []}, r"files is \[\]; expected a dict"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_threat_absurd_settings(folder: Path, sound: dict[str, bytes], changes: dict[str, Any], message: str) -> None:
    write(folder, sealed(sound, **changes))
    refused(folder, message)


@pytest.mark.parametrize(
    "name", ["a\u202eb", "a\nb", "a\x1b[31mb", "a\0b", "", " a", "x" * 65, "\u2066a", "a\u200bb"], ids=repr
)
def test_threat_odd_domain_names(folder: Path, sound: dict[str, bytes], name: str) -> None:
    write(folder, sealed(sound, domains=["code", name]))
    refused(folder, "a domain is .*; expected 1 to 64 printable characters")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"layer": 2', '"layer": 2, "layer": 3'),
        ('"tau": 0.5', '"tau": NaN'),
        ('"tau": 0.5', '"tau": 1e999'),
        ('"tau": 0.5', '"tau": -Infinity'),
        ("{", "[{"),
        ("{", "\ufeff{"),
    ],
)
def test_threat_json_that_readers_disagree_about(folder: Path, sound: dict[str, bytes], old: str, new: str) -> None:
    text = sound[CONFIG].decode()
    assert old in text
    write(folder, {**sound, CONFIG: text.replace(old, new, 1).encode()})
    refused(folder, "asa_config.json: not valid JSON: ")


@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code", "model_class", "__class__", "_target_", "modules"])
def test_threat_no_key_leads_to_an_import(folder: Path, sound: dict[str, bytes], key: str) -> None:
    (folder / "evil_module_of_a_stranger.py").write_text("raise SystemExit('ran')")
    value = {"AutoModel": "evil_module_of_a_stranger.Evil", "trusted": True}
    write(folder, sealed(sound, **{key: value}))
    with pytest.warns(UserWarning, match=f"ignored unknown keys .*{key}"):
        adapter = ASAAdapter.from_pretrained(folder)
    assert "evil_module_of_a_stranger" not in sys.modules
    assert not hasattr(adapter.config, key) or key == "__class__"
    assert type(adapter.config) is ASAConfig


# --- threat: the card, another model


def test_threat_the_card_of_a_repository_is_never_read_or_rendered(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()  # to open it would fail
    (folder / "model_card_template.md").write_text(
        "{{ 7919 * 7919 }}{% for x in ().__class__.__base__.__subclasses__() %}"
    )
    adapter = ASAAdapter.from_pretrained(folder)
    assert "62710561" not in (adapter.save_pretrained(tmp_path / "again") / "README.md").read_text()


def test_threat_another_base_model(folder: Path, sound: dict[str, bytes]) -> None:
    write(folder, sealed(sound, model_type="llama"))
    with pytest.raises(IncompatibleModelError, match="model type is 'lfm2', but the adapter was fitted for"):
        ASAAdapter.from_pretrained(folder).attach(random_model(), allow_mismatch=True)


def test_threat_a_layer_that_the_model_has_not(folder: Path, sound: dict[str, bytes]) -> None:
    write(folder, sealed(sound, num_layers=10**9, layer=10**8))
    with (
        bounded(),
        pytest.raises(IncompatibleModelError, match=f"decoder blocks is {DEPTH}, but the adapter"),
    ):
        ASAAdapter.from_pretrained(folder).attach(random_model(), allow_mismatch=True)


# --- bounds that hold for a whole process

LIMITED = """
import sys, time
from asa_adapter import ASAAdapter, AdapterFormatError

def kilobytes(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

for folder in sys.argv[1:]:
    open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
    before, began = kilobytes("VmRSS"), time.process_time()
    try:
        ASAAdapter.from_pretrained(folder)
    except AdapterFormatError:
        pass
    print((kilobytes("VmHWM") - before) / 1024, time.process_time() - began)
"""


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's count of a process's memory"
)
def test_the_worst_of_these_stay_within_memory_and_time(sound: dict[str, bytes], tmp_path: Path) -> None:
    parts = members(sound[ROUTER])
    array = next(name for name in parts if name != "schema.json")
    worst = {
        CONFIG: b"[" + b"[]," * 340_000 + b"[]]",
        VECTORS: giant_header(),
        ROUTER: zipped({**parts, array: npy(np.zeros((1, 16_000_000), dtype=np.float32))}),
        REPORT: b'{"a": [' + b"[]," * 1_300_000 + b"[]]}",
    }
    for name, content in worst.items():
        (tmp_path / name).mkdir()
        files = {**sound, name: content}
        write(tmp_path / name, files if name == CONFIG else sealed(files))
    command = [sys.executable, "-c", LIMITED, *(str(tmp_path / name) for name in worst)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, line in zip(worst, done.stdout.splitlines(), strict=True):
        grown, seconds = map(float, line.split())
        assert grown < 400, f"{name}: {grown:.0f} MiB"
        assert seconds < 5, f"{name}: {seconds:.1f} s"
