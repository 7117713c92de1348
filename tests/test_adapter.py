import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import DEPTH, WIDTH, fitted_adapter, greedy, prompts, random_model, traces

from asa_adapter import (
    AdapterFormatError,
    ASAAdapter,
    ASAConfig,
    IncompatibleModelError,
    SteeringVectors,
)

FILES = [
    "README.md",
    "asa_config.json",
    "probes.skops",
    "report.json",
    "router.skops",
    "steering_vectors.safetensors",
]


@pytest.fixture
def adapter() -> ASAAdapter:
    return fitted_adapter()


@pytest.fixture
def folder(adapter: ASAAdapter, tmp_path: Path) -> Path:
    return adapter.save_pretrained(tmp_path / "adapter")


def some_states(rows: int = 50) -> torch.Tensor:
    return 3 * torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(3))


def edit(folder: Path, **changes: Any) -> None:
    """Changes an adapter's config in a way that its checksum agrees with."""
    config = ASAConfig.from_json((folder / "asa_config.json").read_text())
    values = {**config.to_dict(), **changes}
    fresh = ASAConfig(**{key: value for key, value in values.items() if key != "config_sha256"})
    (folder / "asa_config.json").write_text(fresh.sealed(fresh.files).to_json())


def test_saving_writes_these_files_and_nothing_else(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_a_loaded_adapter_makes_the_same_decisions(adapter: ASAAdapter, folder: Path) -> None:
    loaded = ASAAdapter.from_pretrained(folder)
    assert loaded.decide(some_states()) == adapter.decide(some_states())
    assert {d.gate for d in loaded.decide(some_states())} == {-1, 1}
    assert torch.equal(loaded._controller.direction, adapter._controller.direction)
    assert loaded._controller.step == adapter._controller.step


def test_a_loaded_adapter_steers_to_the_same_tokens(adapter: ASAAdapter, folder: Path) -> None:
    model = random_model()
    steered = adapter.generate(model, prompts(), max_new_tokens=8, do_sample=False)
    loaded = ASAAdapter.from_pretrained(folder).generate(model, prompts(), max_new_tokens=8, do_sample=False)
    assert torch.equal(steered, loaded)


def test_the_report_travels_with_the_adapter(tmp_path: Path) -> None:
    adapter = fitted_adapter()
    adapter.report = {"chosen": {"why": "a test"}}
    assert ASAAdapter.from_pretrained(adapter.save_pretrained(tmp_path)).report == adapter.report


def test_saving_again_over_a_loaded_adapter_keeps_its_decisions(folder: Path) -> None:
    loaded = ASAAdapter.from_pretrained(folder)
    again = ASAAdapter.from_pretrained(loaded.save_pretrained(folder))
    assert again.decide(some_states()) == loaded.decide(some_states())


@pytest.mark.parametrize("domains", [("only",), ("a", "b"), ("a", "b", "c", "d", "e")])
def test_any_number_of_domains_is_saved_and_loaded(tmp_path: Path, domains: tuple[str, ...]) -> None:
    adapter = fitted_adapter(domains)
    loaded = ASAAdapter.from_pretrained(adapter.save_pretrained(tmp_path))
    assert loaded.decide(some_states()) == adapter.decide(some_states())


def test_decide_takes_arrays_and_marks_nothing_as_applied(adapter: ASAAdapter) -> None:
    decisions = adapter.decide(some_states().numpy())
    assert decisions == adapter.decide(some_states())
    assert {(d.position, d.applied) for d in decisions} == {(-1, False)}


@pytest.mark.parametrize("shape", [(WIDTH,), (2, WIDTH + 1), (1, 2, WIDTH)])
def test_decide_refuses_other_shapes(adapter: ASAAdapter, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"states have shape .*; expected \(n, {WIDTH}\)"):
        adapter.decide(torch.zeros(shape))


def test_generate_is_a_drop_in_that_leaves_nothing(adapter: ASAAdapter) -> None:
    model = random_model()
    with adapter.attach(model):
        steered = greedy(model, prompts())
    output = adapter.generate(model, prompts(), max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert torch.equal(output, steered)
    assert traces(model) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_layers": DEPTH + 1},
            rf"number of decoder blocks is {DEPTH}, but the adapter was fitted for {DEPTH + 1}",
        ),
        ({"model_type": "llama"}, "model type is 'lfm2', but the adapter was fitted for 'llama'"),
        ({"layer_path": "model.blocks"}, "has no 'model.blocks'"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_left_alone(changes: dict[str, Any], message: str) -> None:
    model = random_model()
    before = set(model.__dict__)
    with pytest.raises(IncompatibleModelError, match=message):
        fitted_adapter(**changes).attach(model, allow_mismatch=True)
    assert set(model.__dict__) == before
    assert traces(model) == []


def test_another_hidden_size_is_refused(adapter: ASAAdapter) -> None:
    model = random_model()
    model.config.hidden_size = 48
    with pytest.raises(IncompatibleModelError, match="hidden size is 48, but the adapter was fitted for 32"):
        adapter.attach(model, allow_mismatch=True)
    assert traces(model) == []


def test_a_module_that_does_not_generate_is_refused(adapter: ASAAdapter) -> None:
    with pytest.raises(IncompatibleModelError, match=r"Lfm2Model has no .*generate\(\); expected a transformers"):
        adapter.attach(random_model().model)


def test_an_encoder_decoder_is_refused(adapter: ASAAdapter) -> None:
    model = random_model()
    model.config.is_encoder_decoder = True
    with pytest.raises(IncompatibleModelError, match="only decoder-only models can be steered"):
        adapter.attach(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"base_model": "LiquidAI/LFM2.5-1.2B-Instruct"},
            "the model is 'models/other', but the adapter was fitted for",
        ),
        ({"base_model_revision": "b" * 40}, "the model is at revision aaa"),
    ],
)
def test_another_origin_is_refused_unless_allowed(changes: dict[str, Any], message: str) -> None:
    model = random_model()
    model.config.name_or_path, model.name_or_path = "models/other", "models/other"
    model.config._commit_hash = "a" * 40
    adapter = fitted_adapter(**changes)
    with pytest.raises(IncompatibleModelError, match=rf"{message}.*allow_mismatch=True"):
        adapter.attach(model)
    assert traces(model) == []
    with pytest.warns(UserWarning, match=message):
        handle = adapter.attach(model, allow_mismatch=True)
    handle.remove()


@pytest.mark.parametrize("name", ["/somewhere/my-copy/", "./my-copy", ".", "liquidai/lfm2.5-1.2b-instruct", ""])
def test_a_folder_may_have_any_name(name: str) -> None:
    model = random_model()
    model.name_or_path = name
    fitted_adapter(base_model="LiquidAI/LFM2.5-1.2B-Instruct").attach(model).remove()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chat_template_sha256": "0" * 64}, "chat template is not the one the adapter was fitted with"),
        ({"tool_call_start": "[TOOL_CALLS]"}, r"neither vocabulary nor chat template has .*'\[TOOL_CALLS\]'"),
    ],
)
def test_the_tokenizer_is_checked_where_it_is_given(tiny_lfm2: Any, changes: dict[str, Any], message: str) -> None:
    model, adapter = random_model(), fitted_adapter(**changes)
    with pytest.raises(IncompatibleModelError, match=message):
        adapter.attach(model, tokenizer=tiny_lfm2[1])
    adapter.attach(model).remove()


def test_a_tokenizer_that_fits_is_accepted(tiny_lfm2: Any) -> None:
    tokenizer = tiny_lfm2[1]
    sha256 = hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()
    adapter = fitted_adapter(chat_template_sha256=sha256, tool_call_start="<|tool_call_start|>")
    adapter.attach(random_model(), tokenizer=tokenizer).remove()


def test_parts_that_do_not_fit_together_are_refused(adapter: ASAAdapter) -> None:
    narrow = SteeringVectors(torch.eye(8)[0], torch.eye(8)[:2])
    with pytest.raises(ValueError, match=r"steering vectors have shape \(2, 8\); expected \(2, 32\)"):
        ASAAdapter(adapter.config, narrow, adapter.router, adapter.probes)


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("README.md", "report.json")])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(AdapterFormatError, match=f"{name}: missing from"):
        ASAAdapter.from_pretrained(folder)


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("README.md", "asa_config.json")])
def test_one_flipped_bit_is_noticed(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(AdapterFormatError, match=f"{name}: its SHA-256 is not the one in asa_config.json"):
        ASAAdapter.from_pretrained(folder)


def test_an_edited_config_is_noticed(folder: Path) -> None:
    path = folder / "asa_config.json"
    path.write_text(path.read_text().replace('"tau": 0.5', '"tau": 0.9'))
    with pytest.raises(AdapterFormatError, match="does not match its config_sha256"):
        ASAAdapter.from_pretrained(folder)


def test_a_config_without_a_checksum_is_refused(folder: Path) -> None:
    values = json.loads((folder / "asa_config.json").read_text())
    (folder / "asa_config.json").write_text(json.dumps({**values, "config_sha256": None}))
    message = r"asa_config\.json: has no config_sha256, so damage would not be seen"
    with pytest.raises(AdapterFormatError, match=message):
        ASAAdapter.from_pretrained(folder)


def test_a_payload_without_a_checksum_is_refused(folder: Path) -> None:
    edit(folder, files={})
    message = r"asa_config\.json: names no SHA-256 for steering_vectors\.safetensors"
    with pytest.raises(AdapterFormatError, match=message):
        ASAAdapter.from_pretrained(folder)


def test_the_card_may_be_edited(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    assert ASAAdapter.from_pretrained(folder).config.layer == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 16}, r"steering_vectors.safetensors: holds .*; expected"),
        ({"domains": ["code", "law"]}, r"router.skops: its classes are \['code', 'math'\]"),
        ({"domains": ["code", "math", "law"]}, "steering_vectors.safetensors: holds"),
    ],
)
def test_a_config_that_does_not_fit_its_files_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(AdapterFormatError, match=message):
        ASAAdapter.from_pretrained(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("layer", 99, r"layer is 99; expected 0 to 3"),
        ("layer", True, "layer is True; expected an int"),
        ("alpha", 1e6, "alpha is 1000000.0; expected 0 to 1000"),
        ("tau", 0.2, "tau is 0.2; expected 0.5 to 1"),
        ("format_version", 3, "format_version is 3; .*upgrade asa_adapter"),
        ("domains", ["a\u202eb"], "a domain is .*; expected 1 to 64 printable characters"),
    ],
)
def test_a_config_with_absurd_values_is_refused(folder: Path, key: str, value: Any, message: str) -> None:
    values = json.loads((folder / "asa_config.json").read_text())
    (folder / "asa_config.json").write_text(json.dumps({**values, key: value}))
    with pytest.raises(AdapterFormatError, match=f"asa_config.json: {message}"):
        ASAAdapter.from_pretrained(folder)


def test_a_report_that_is_no_object_is_refused(folder: Path) -> None:
    (folder / "report.json").write_text("[1]")
    files = ASAConfig.from_json((folder / "asa_config.json").read_text()).files
    edit(folder, files={**files, "report.json": hashlib.sha256(b"[1]").hexdigest()})
    with pytest.raises(AdapterFormatError, match=r"report\.json: found a list; expected a JSON object"):
        ASAAdapter.from_pretrained(folder)


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "none/", "a/b/c", Path("none")])
def test_a_folder_that_is_missing_is_not_looked_for_on_the_hub(name: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match="no adapter folder at "):
        ASAAdapter.from_pretrained(name)


def test_saving_where_nothing_can_be_written_says_so(adapter: ASAAdapter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file"):
        adapter.save_pretrained(tmp_path / "file")
