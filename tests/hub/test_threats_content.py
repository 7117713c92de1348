"""Strangers' adapters whose files are sound and whose content is not: numbers, settings, the card, another model."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from models import DEPTH, WIDTH, fitted_adapter, random_model
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from strangers import CONFIG, PROBES, ROUTER, VECTORS, bounded, members, refused, sealed, write

from asa_adapter import ASAAdapter, IncompatibleModelError
from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.hub.card import model_card
from asa_adapter.report import Report

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
        ({"format_version": 3}, "format_version is 3; .*: upgrade asa_adapter"),
        ({"format_version": "1"}, "format_version is '1'; expected an int"),
        ({"format_version": 0}, "format_version is 0"),
        ({"format_version": 2, "prompt_end": [[[1]]]}, r"prompt_end is \[\[\[1\]\]\]; expected token ids"),
        ({"format_version": 2, "tools_marks": {"a": 1}}, "tools_marks is {'a': 1}; expected runs of token ids"),
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
        ('"layer"', '\ufeff"layer"'),  # at the beginning of the file an editor put it, and it says nothing
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


@pytest.mark.parametrize("name", ["chat_template", "tool_call_format", "tool_call_start", "tool_call_end"])
def test_threat_a_text_among_the_arguments_stays_in_its_block_of_code(name: str) -> None:
    report = Report.read({"arguments": {name: "x\n```\n# Run this instead"}})
    text = model_card(fitted_adapter().config, report)
    assert f"ASATrainingArguments({name}=" in text
    assert "\n# Run this instead" not in text


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
