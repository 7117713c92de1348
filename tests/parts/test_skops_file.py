"""Skops files that are no stored classifiers, made by hand: what is refused before skops sees it."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from asa_adapter import AdapterFormatError, Router
from asa_adapter.parts.skops_file import audit_skops


def members() -> dict[str, bytes]:
    """A sound file's members."""
    states = np.random.default_rng(0).normal(size=(40, 4))
    content = Router.fit(states, ["code", "math"] * 20).to_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def schema(parts: dict[str, bytes]) -> Any:
    return json.loads(parts["schema.json"])


def attribute(found: Any, name: str) -> Any:
    return found["content"]["content"][name]


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def edited(change: Callable[[Any], None]) -> bytes:
    """A sound file whose schema was changed."""
    parts = members()
    found = schema(parts)
    change(found)
    return zipped({**parts, "schema.json": json.dumps(found).encode()})


def with_array(content: bytes) -> bytes:
    """A sound file with another member behind its coefficients."""
    parts = members()
    return zipped({**parts, attribute(schema(parts), "coef_")["file"]: content})


def header(text: str) -> bytes:
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


def test_a_sound_file_passes() -> None:
    audit_skops(zipped(members()), "a")


def test_the_same_parts_are_always_the_same_bytes() -> None:
    """So a push that changes nothing makes no commit."""
    states = np.random.default_rng(0).normal(size=(40, 4))
    fitted = Router.fit(states, ["code", "math"] * 20)
    content = fitted.to_bytes()
    assert Router.from_bytes(content, 4, ("code", "math")).to_bytes() == fitted.to_bytes() == content


def test_what_other_releases_of_scikit_learn_store_passes() -> None:
    fitted = LogisticRegression().fit(np.random.default_rng(0).normal(size=(20, 3)), [0, 1] * 10)
    fitted.multi_class, fitted.penalty = "auto", "l2"
    audit_skops(skops.io.dumps({"pooled": fitted, "by_domain": {}}), "a")


def node(loader: str, module: str, name: str) -> dict[str, Any]:
    return {"__loader__": loader, "__module__": module, "__class__": name, "content": {}, "__id__": 1}


NODES = [
    ("ObjectNode", "sklearn.pipeline", "Pipeline"),
    ("ObjectNode", "sklearn.cluster._kmeans", "KMeans"),
    ("ObjectNode", "builtins", "LogisticRegression"),
    ("TypeNode", "builtins", "float"),
    ("TypeNode", "builtins", "eval"),
    ("FunctionNode", "builtins", "eval"),
    ("FunctionNode", "numpy", "exp"),
    ("MethodNode", "builtins", "dict"),
    ("OperatorFuncNode", "operator", "methodcaller"),
    ("ConstructorFromReduceNode", "builtins", "open"),
    ("PartialNode", "functools", "partial"),
    ("BytesNode", "builtins", "bytes"),
    ("SetNode", "builtins", "set"),
    ("SparseMatrixNode", "scipy.sparse", "csr_matrix"),
    ("NdArrayNode", "numpy", "float64"),
    ("NdArrayNode", "numpy", "matrix"),
    ("TreeNode", "sklearn.tree._tree", "Tree"),
]


@pytest.mark.parametrize("kind", NODES, ids=lambda kind: ".".join(kind))
@pytest.mark.parametrize("place", ["root", "attribute", "list", "under a name of its own"])
def test_every_other_node_is_refused_wherever_it_stands(kind: tuple[str, str, str], place: str) -> None:
    def change(found: Any) -> None:
        if place == "root":
            found.update(node(*kind))
        elif place == "attribute":
            found["content"]["content"]["coef_"] = node(*kind)
        elif place == "list":
            found["content"]["key_types"]["content"].append(node(*kind))
        else:
            found["hidden"] = {"deep": [node(*kind)]}

    with pytest.raises(AdapterFormatError, match=rf"^a: holds a {kind[2]}; expected a LogisticRegression$"):
        audit_skops(edited(change), "a")


@pytest.mark.parametrize("value", [None, 1, ["ObjectNode"], {}], ids=repr)
def test_a_node_whose_type_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(AdapterFormatError, match=r"^a: refused: a part of schema\.json names no type$"):
        audit_skops(edited(lambda found: attribute(found, "C").update(__class__=value)), "a")


@pytest.mark.parametrize(
    "name", ["../x.npy", "/x.npy", "x.py", "1.npy.py", "1.NPY", "a/1.npy", "1.npy\n", "\uff11.npy"]
)
def test_a_member_with_another_name_is_refused(name: str) -> None:
    with pytest.raises(AdapterFormatError, match=r"^a: refused: a member is called .*; expected schema\.json and"):
        audit_skops(zipped({**members(), name: b"x"}), "a")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for content in (members()["schema.json"], b"{}"):
            archive.writestr("schema.json", content)
    with pytest.raises(AdapterFormatError, match=r"^a: refused: two members have the same name$"):
        audit_skops(buffer.getvalue(), "a")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method: int) -> None:
    with pytest.raises(AdapterFormatError, match=r"is compressed or encrypted in another way$"):
        audit_skops(zipped(members(), method), "a")


def test_an_encrypted_member_is_refused() -> None:
    content = bytearray(zipped({"schema.json": b"{}"}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(AdapterFormatError, match=r"is compressed or encrypted in another way$"):
        audit_skops(bytes(content), "a")


def test_a_giant_schema_is_refused_unread() -> None:
    with pytest.raises(AdapterFormatError, match=r"^a: refused: schema\.json has 5242880 bytes; expected at most"):
        audit_skops(zipped({"schema.json": b" " * 5 * 2**20}), "a")


def test_a_member_that_holds_more_than_it_says_is_refused() -> None:
    parts = members()
    content = zipped({**parts, "schema.json": parts["schema.json"] + b" " * 10_000})
    size = (len(parts["schema.json"]) + 10_000).to_bytes(4, "little")
    assert size in content
    with pytest.raises(AdapterFormatError, match=r"^a: refused: "):
        audit_skops(content.replace(size, (1000).to_bytes(4, "little")), "a")


def test_one_member_behind_two_arrays_is_refused() -> None:
    def change(found: Any) -> None:
        attribute(found, "intercept_")["file"] = attribute(found, "coef_")["file"]

    with pytest.raises(AdapterFormatError, match=r"^a: refused: two arrays are said to be in "):
        audit_skops(edited(change), "a")


@pytest.mark.parametrize(
    "changes", [{"type": "json"}, {"file": None}, {"file": 3}, {"__id__": None}, {"__id__": "x"}, {"__id__": True}],
    ids=repr,
)  # fmt: skip
def test_an_array_without_a_member_of_its_own_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(AdapterFormatError, match=r"^a: refused: an array without a member of its own$"):
        audit_skops(edited(lambda found: attribute(found, "coef_").update(changes)), "a")


def test_an_array_whose_member_is_missing_is_refused() -> None:
    with pytest.raises(AdapterFormatError, match=r"^a: refused: KeyError: "):
        audit_skops(edited(lambda found: attribute(found, "coef_").update(file="1.npy")), "a")


def test_the_schema_itself_is_no_array() -> None:
    with pytest.raises(AdapterFormatError, match=r"^a: refused: ValueError: .*magic string"):
        audit_skops(edited(lambda found: attribute(found, "coef_").update(file="schema.json")), "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "EOF"),
        (b"\x80\x04\x95\x00\x00\x00\x00", "magic string"),
        (npy(np.ones((1, 4)))[:-8], "holds 24 bytes; its header says 32"),
        (npy(np.ones((1, 4))) + b"x", "holds 33 bytes; its header says 32"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"), "header says 8000000000000"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -4), }"), "holds 0 bytes; its header says 32"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"), "is an array of object in 1 dimensions"),
        (header("{'descr': '|V8', 'fortran_order': False, 'shape': (0,), }"), r"is an array of \|V8 in 1 dimensions"),
        (header("{'descr': '<U999', 'fortran_order': False, 'shape': (0,), }"), "is an array of <U999 in 1 dim"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1, 4), }"), "float64 in 3 dimensions"),
        (header("__import__('os').getcwd()"), "malformed node"),
        (header("{'descr': '<f8'}"), "correct keys"),
        (b"\x93NUMPY\x02\x00" + bytes(100), "in another version of numpy's format"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535, "Header info length"),
    ],
    ids=[
        "nothing", "pickle", "cut", "longer", "giant", "negative", "objects", "void", "long texts", "three dimensions",
        "code", "no keys", "version", "long header",
    ],
)  # fmt: skip
def test_an_array_that_is_not_what_it_says_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(AdapterFormatError, match=f"(?s)^a: refused: .*{message}"):
        audit_skops(with_array(content), "a")
