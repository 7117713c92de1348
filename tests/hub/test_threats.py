"""Strangers' adapters: whatever a folder holds, it loads as finite numbers of the right shapes, or is refused.

One test for each threat, through `ASAAdapter.from_pretrained`. Checksums protect against accidents, not against a
stranger, who rewrites them: `sealed` does as much, so that the reading code is met and not the checksum alone.
test_threats_content has the threats in sound files; test_mutations damages the files in every other way; the details
stand in test_files, test_asa_config_file, test_skops_file, test_classifier_files and test_vectors.
"""

import ast
import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
import torch
from models import WIDTH
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from slowness import slowness
from strangers import (
    CONFIG,
    DOMAINS,
    PAYLOAD,
    PROBES,
    REPORT,
    ROUTER,
    SECONDS,
    VECTORS,
    bounded,
    members,
    refused,
    sealed,
    write,
    zipped,
)

import asa_adapter
from asa_adapter import ASAAdapter
from asa_adapter.hub.checked_files import SIZE_LIMITS


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
        copies[f"d{i}"] = json.loads(
            re.sub(r'"__id__": (\d+)', lambda m, i=i: f'"__id__": {int(m[1]) + 1}{i:03}', pooled)
        )
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


@pytest.mark.slow
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
    slow = slowness()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    slow = max(slow, slowness())
    for name, line in zip(worst, done.stdout.splitlines(), strict=True):
        grown, seconds = map(float, line.split())
        assert grown < 400, f"{name}: {grown:.0f} MiB"
        assert seconds < SECONDS * slow, f"{name}: {seconds:.1f} s"
