"""Which files are refused, and what a file tells of itself."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf_models import needs_llamacpp

from asa_adapter import ASAAdapter, IncompatibleModelError
from asa_adapter.cli.entrypoint import main

pytestmark = needs_llamacpp


def opened(path: Path) -> Any:
    from asa_adapter.llamacpp import GGUFModel

    return GGUFModel(path, n_ctx=256, threads=1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model file at .*none.gguf"):
        opened(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (0, "failed to read magic"),
        (300, "failed to read key-value pairs"),
        (3_000_000, "data is not within the file bounds, model is corrupted or incomplete"),
    ],
)
def test_a_file_that_was_cut_short_is_refused(
    written: Callable[..., Path], tmp_path: Path, kept: int, reason: str
) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(written().read_bytes()[:kept])
    with pytest.raises(IncompatibleModelError, match=rf"short.gguf cannot be loaded by llama.cpp: .*{reason}"):
        opened(path)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("hello " * 100)
    with pytest.raises(IncompatibleModelError, match="invalid magic characters: 'hell', expected 'GGUF'"):
        opened(path)


def test_an_unknown_architecture_is_refused(written: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(written("tiny_qwen3").read_bytes().replace(b"qwen3", b"qwenX"))
    with pytest.raises(IncompatibleModelError, match="unknown model architecture: 'qwenX'"):
        opened(path)


def test_an_adapter_for_another_architecture_is_refused(
    written: Callable[..., Path], tiny_adapter: ASAAdapter
) -> None:
    file = opened(written("tiny_qwen3"))
    with pytest.raises(
        IncompatibleModelError, match="number of decoder blocks is 6, but the adapter was fitted for 8"
    ):
        tiny_adapter.attach(file)
    assert not file.is_steered


def test_a_file_tells_its_type_size_and_how_it_is_stored(written: Callable[..., Path]) -> None:
    plain, packed = opened(written()).facts, opened(written("tiny_lfm2", "Q4_0")).facts
    assert plain[:5] == ("tiny_lfm2", ("lfm2",), 160, 8, 256)
    assert (plain.quantised, packed.quantised) == ("", "Q4_0")


def test_the_fingerprint_names_the_quantisation_and_knows_the_weights_not_the_rest(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    own, packed = (opened(written("tiny_lfm2", kind)).fingerprint() for kind in ("F32", "Q8_0"))
    assert own.startswith("gguf:F32:")
    assert packed.startswith("gguf:Q8_0:")
    content = written().read_bytes()
    renamed, changed = tmp_path / "renamed.gguf", tmp_path / "changed.gguf"
    renamed.write_bytes(content.replace(b"tiny_lfm2", b"tiny_lfmX"))
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert opened(renamed).fingerprint() == own
    assert opened(changed).fingerprint() != own


def test_a_model_in_several_files_has_a_fingerprint_of_all_of_them(tmp_path: Path) -> None:
    from gguf_files import write_gguf

    source = Path(__file__).resolve().parents[2] / "examples" / "tiny_lfm2"
    write_gguf(source, tmp_path / "model.gguf", most_tensors=40)
    first, second = sorted(tmp_path.glob("model-*.gguf"))
    own = opened(first).fingerprint()
    content = second.read_bytes()
    second.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert opened(first).fingerprint() != own


def test_a_file_without_a_tokenizer_says_how_to_name_one(written: Callable[..., Path]) -> None:
    with pytest.raises(
        IncompatibleModelError, match="carries no tokenizer; name the model's tokenizer with --tokenizer"
    ):
        opened(written()).tokenizer()


def test_the_commands_answer_in_one_line_for_a_file_that_they_cannot_use(
    written: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(written().read_bytes()[:300])
    for path, reason in ((short, "cannot be loaded by llama.cpp"), (tmp_path / "none.gguf", "no model file at")):
        assert main(["diagnose", "--model", str(path)]) == 2
        told = capsys.readouterr().err
        assert reason in told
        assert len(told.splitlines()) == 1


@pytest.mark.filterwarnings("ignore")  # so few rows give cause for some
def test_a_training_on_a_file_loads_no_torch_model_and_its_adapter_knows_the_file(
    written: Callable[..., Path],
    few_rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import transformers

    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("a torch model was loaded")
    )
    path, folder = written("tiny_lfm2", "Q8_0"), tmp_path / "adapter"
    tokenizer = Path(__file__).resolve().parents[2] / "examples" / "tiny_lfm2"
    model = ["--model", str(path), "--tokenizer", str(tokenizer), "--n-ctx", "512"]
    data = ["--data", str(few_rows), "--max-new-tokens", "12"]
    small = ["--layers", "5", "6", "--alphas", "0", "1", "--taus", "0.5", "--betas", "0.5", "--finalists", "1"]
    assert main(["train", *model, *data, *small, "--output", str(folder), "--quiet"]) == 0
    config = ASAAdapter.from_pretrained(folder).config
    assert config.base_model_fingerprint == opened(path).fingerprint()
    assert (config.model_type, config.hidden_size, config.num_layers) == ("lfm2", 160, 8)
    assert main(["generate", str(folder), *model, "--prompt", "how much is 3 times 4", "--compare"]) == 0
    assert main(["evaluate", str(folder), *model, *data]) == 0
    other = tmp_path / "other.gguf"
    shutil.copy(written("tiny_lfm2", "Q4_0"), other)
    capsys.readouterr()
    assert main(["explain", str(folder), "--model", str(other), *model[2:], "--prompt", "how much is 3 times 4"]) == 2
    assert "the model's weights are not those the adapter was fitted for (fingerprint gguf:Q4_0" in (
        capsys.readouterr().err
    )
