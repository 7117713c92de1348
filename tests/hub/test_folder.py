"""What saving promises: all or nothing, nothing of the user's lost, and nothing saved that cannot be loaded again."""

import codecs
import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import Killed, break_off
from models import WIDTH, fitted_adapter
from strangers import CONFIG, PAYLOAD, PROBES, REPORT, ROUTER, VECTORS, sealed, sound_files

from asa_adapter import AdapterFormatError, ASAAdapter
from asa_adapter.hub.card import model_card
from asa_adapter.report import Report

CARD = "README.md"
FILES = sorted([CARD, CONFIG, *PAYLOAD])
STATES = 3 * torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(3))


def named(name: str) -> ASAAdapter:
    """An adapter whose files all differ from those of other names."""
    adapter = fitted_adapter(("code", name), base_model=name)
    adapter.report = {"chosen": {"why": name}}
    return adapter


@pytest.fixture
def old() -> ASAAdapter:
    return named("old")


@pytest.fixture
def new() -> ASAAdapter:
    return named("new")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def whole(folder: Path, *adapters: ASAAdapter) -> str:
    """The name of the adapter in a folder, which must be one of these in all its parts."""
    found = ASAAdapter.from_pretrained(folder)
    [same] = [adapter for adapter in adapters if adapter.config.base_model == found.config.base_model]
    assert found.decide(STATES) == same.decide(STATES)
    assert found.report == same.report
    assert torch.equal(found.vectors.v_domain, same.vectors.v_domain)
    return str(found.config.base_model)


# --- all or nothing; test_files breaks off in more ways


def test_a_save_that_is_killed_anywhere_leaves_the_old_or_the_new_adapter(
    tmp_path: Path, old: ASAAdapter, new: ASAAdapter
) -> None:
    sound = old.save_pretrained(tmp_path / "sound")
    seen = []
    for at in range(1, 100):
        folder = shutil.copytree(sound, tmp_path / "folder")
        with pytest.MonkeyPatch.context() as patch:
            break_off(patch, at, dead=True)
            try:
                new.save_pretrained(folder)
                break
            except Killed:
                seen.append(whole(folder, old, new))
        shutil.rmtree(folder)
    assert seen == sorted(seen, reverse=True)  # "old" up to one moment, "new" from there on
    assert set(seen) == {"old", "new"}


def test_an_interrupted_save_leaves_no_files_behind(
    tmp_path: Path, old: ASAAdapter, new: ASAAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = old.save_pretrained(tmp_path)
    break_off(monkeypatch, 9)
    with pytest.raises(Killed):
        new.save_pretrained(folder)
    assert names(folder) == FILES


def test_what_a_killed_save_left_is_removed_a_day_later(tmp_path: Path, old: ASAAdapter) -> None:
    for name, age in (("young", 3600), ("old", 25 * 3600)):
        left = tmp_path / f".asa-unfinished-{name}"
        left.mkdir()
        (left / CONFIG).write_text("{")
        os.utime(left, times=(time.time() - age, time.time() - age))
    old.save_pretrained(tmp_path)
    assert names(tmp_path) == sorted([*FILES, ".asa-unfinished-young"])


def test_saves_at_once_leave_one_of_them_and_a_reader_always_finds_one(tmp_path: Path) -> None:
    adapters = [named(name) for name in ("one", "two", "three")]
    adapters[0].save_pretrained(tmp_path)
    failed: list[BaseException] = []

    def save(adapter: ASAAdapter) -> None:
        try:
            for _ in range(4):
                adapter.save_pretrained(tmp_path)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=save, args=[adapter]) for adapter in adapters]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        whole(tmp_path, *adapters)
    for thread in threads:
        thread.join()
    assert failed == []
    assert whole(tmp_path, *adapters)
    assert names(tmp_path) == FILES


def test_a_reader_in_the_middle_of_a_save_reads_the_new_adapter(
    tmp_path: Path, old: ASAAdapter, new: ASAAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asa_adapter.hub import checked_files as module

    folder, read = old.save_pretrained(tmp_path), module.read_current

    def with_a_save_behind_the_config(folder: Path, name: str, limit: int) -> bytes:
        content = read(folder, name, limit)
        if name == CONFIG:
            monkeypatch.setattr(module, "read_current", read)
            new.save_pretrained(folder)
        return content

    monkeypatch.setattr(module, "read_current", with_a_save_behind_the_config)
    assert whole(folder, old, new) == "new"


# --- what else lies there


def test_other_files_of_the_folder_stay(tmp_path: Path, old: ASAAdapter, new: ASAAdapter) -> None:
    old.save_pretrained(tmp_path)
    others = {"notes.md": "mine", ".git/config": "[core]", "plots/mine.png": "png", ".gitattributes": "*.skops -text"}
    for name, text in others.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    new.save_pretrained(tmp_path)
    assert whole(tmp_path, new) == "new"
    assert {name: (tmp_path / name).read_text() for name in others} == others


def test_a_folder_behind_a_link_is_saved_into_and_files_that_are_links_are_replaced(
    tmp_path: Path, old: ASAAdapter, new: ASAAdapter
) -> None:
    folder = old.save_pretrained(tmp_path / "folder")
    (folder / CONFIG).rename(tmp_path / "blob")
    (folder / CONFIG).symlink_to(tmp_path / "blob")
    (tmp_path / "link").symlink_to(folder)
    new.save_pretrained(tmp_path / "link")
    assert whole(folder, new) == "new"
    assert (tmp_path / "link").is_symlink()
    assert '"old"' in (tmp_path / "blob").read_text()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="a superuser may write anywhere")
def test_the_folders_parent_need_not_be_writable(tmp_path: Path, old: ASAAdapter, new: ASAAdapter) -> None:
    folder = old.save_pretrained(tmp_path / "folder")
    tmp_path.chmod(0o500)
    new.save_pretrained(folder)
    tmp_path.chmod(0o700)
    assert whole(folder, new) == "new"


def test_a_folder_in_the_place_of_a_file_is_named_and_the_old_adapter_stays(
    tmp_path: Path, old: ASAAdapter, new: ASAAdapter
) -> None:
    folder = old.save_pretrained(tmp_path)
    (folder / CARD).unlink()
    (folder / CARD).mkdir()
    with pytest.raises(IsADirectoryError, match=r"README\.md: it is a folder; expected a file, or nothing"):
        new.save_pretrained(folder)
    assert whole(folder, old) == "old"


def test_files_that_cannot_be_moved_out_of_the_way_are_named(tmp_path: Path, old: ASAAdapter) -> None:
    old.save_pretrained(tmp_path)
    (tmp_path / ".asa-next").mkdir()
    (tmp_path / ".asa-next" / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"\.asa-next in it cannot be emptied; move what is in there elsewhere"):
        old.save_pretrained(tmp_path)
    assert whole(tmp_path, old) == "old"


# --- what is saved can be loaded


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


UNLOADABLE: dict[str, tuple[Any, str]] = {
    "large report": ({"a": "x" * 4 * 2**20}, r"report\.json has 41943\d\d bytes; expected at most 4194304"),
    "two keys that become one": ({1: "a", "1": "b"}, r"report\.json: not valid JSON: the key '1' stands twice"),
    "NaN": ({"a": float("nan")}, r"report\.json: Out of range float"),
    "no JSON": ({"a": {1, 2}}, r"report\.json: Object of type set is not JSON serializable"),
    "deep": (deep(5000), r"report\.json: "),
    "half a character": ({"a": "\ud800"}, r"report\.json: 'utf-8' codec can't encode"),
}


@pytest.mark.parametrize(("report", "message"), UNLOADABLE.values(), ids=list(UNLOADABLE))
def test_what_could_not_be_loaded_again_is_not_saved(
    tmp_path: Path, old: ASAAdapter, report: dict[str, Any], message: str
) -> None:
    folder, adapter = old.save_pretrained(tmp_path), named("new")
    adapter.report = report
    with pytest.raises(ValueError, match=f"^the adapter is not saved, since it could not be loaded again: {message}"):
        adapter.save_pretrained(folder)
    assert whole(folder, old) == "old"
    assert names(folder) == FILES


def test_tools_that_take_too_much_room_are_not_saved(tmp_path: Path) -> None:
    adapter = fitted_adapter(tools=[{"name": "f", "description": "x" * 2**20}])
    with pytest.raises(ValueError, match=r"asa_config\.json has 104\d{4} bytes; expected at most 1048576"):
        adapter.save_pretrained(tmp_path)
    assert names(tmp_path) == []


# --- edited cards


@pytest.fixture
def folder(tmp_path: Path, old: ASAAdapter) -> Path:
    return old.save_pretrained(tmp_path / "folder")


def edit(folder: Path) -> str:
    card = (folder / CARD).read_text(encoding="utf-8").replace("## Use", "## How I use it")
    (folder / CARD).write_text(card, encoding="utf-8")
    return card


def test_an_edited_card_survives_a_save_and_a_warning_says_so(folder: Path, new: ASAAdapter) -> None:
    card = edit(folder)
    with pytest.warns(UserWarning, match=r"README\.md was edited, or .*, and stays as it is; to have it written "):
        new.save_pretrained(folder)
    assert (folder / CARD).read_text(encoding="utf-8") == card
    assert whole(folder, new) == "new"
    (folder / CARD).unlink()
    new.save_pretrained(folder)
    assert "ASA for new" in (folder / CARD).read_text(encoding="utf-8")


def test_a_card_of_the_users_own_survives_a_save(folder: Path, new: ASAAdapter) -> None:
    for text in ("mine", "", "---\nlicense: mit\n---\n"):
        (folder / CARD).write_text(text)
        with pytest.warns(UserWarning, match="was edited, or .* stays"):
            new.save_pretrained(folder)
        assert (folder / CARD).read_text() == text


def crlf(folder: Path) -> None:
    (folder / CARD).write_bytes((folder / CARD).read_bytes().replace(b"\n", b"\r\n"))


def of_a_version_that_did_not_sign(folder: Path) -> None:
    old = ASAAdapter.from_pretrained(folder)
    card = model_card(old.config, Report.read(old.report), "alice/lfm", ["mine.png"])
    (folder / CARD).write_text(card, encoding="utf-8")


@pytest.mark.parametrize("change", [lambda folder: None, crlf, of_a_version_that_did_not_sign])
def test_a_card_that_was_not_edited_is_written_anew(
    folder: Path, new: ASAAdapter, change: Callable[[Path], None]
) -> None:
    change(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new.save_pretrained(folder)
    assert "ASA for new" in (folder / CARD).read_text(encoding="utf-8")


def test_an_edited_card_goes_along_to_another_folder(folder: Path, tmp_path: Path) -> None:
    card = edit(folder)
    with pytest.warns(UserWarning, match="was edited, or .* stays"):
        ASAAdapter.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / CARD).read_text(encoding="utf-8") == card


def test_a_saved_adapter_does_not_bring_back_a_card_that_was_deleted(folder: Path) -> None:
    edit(folder)
    adapter = ASAAdapter.from_pretrained(folder)
    (folder / CARD).unlink()
    adapter.save_pretrained(folder)
    assert "## Use" in (folder / CARD).read_text(encoding="utf-8")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_card_that_is_no_file_is_not_read(folder: Path, new: ASAAdapter) -> None:
    (folder / CARD).unlink()
    os.mkfifo(folder / CARD)
    new.save_pretrained(folder)
    assert whole(folder, new) == "new"


# --- what Git does to files


@pytest.fixture
def sound(tmp_path: Path) -> dict[str, bytes]:
    return sound_files(tmp_path / "sound")


@pytest.mark.parametrize("name", [CONFIG, *PAYLOAD])
def test_a_git_lfs_pointer_is_named_with_its_cure(folder: Path, name: str) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    (folder / name).write_text(pointer)
    message = (
        rf"^{name}: a Git LFS pointer in .*, in place of the file itself: run `git lfs install` once and then `git"
    )
    with pytest.raises(AdapterFormatError, match=message):
        ASAAdapter.from_pretrained(folder)


def test_a_git_lfs_pointer_in_place_of_the_card_stays_and_does_not_go_along(folder: Path, tmp_path: Path) -> None:
    (folder / CARD).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    adapter = ASAAdapter.from_pretrained(folder)
    with pytest.warns(UserWarning, match=r"README\.md is a Git LFS pointer in place of the card .* stays as it is"):
        adapter.save_pretrained(tmp_path / "copy")
    assert "## Use" in (tmp_path / "copy" / CARD).read_text(encoding="utf-8")
    assert (folder / CARD).read_text().startswith("version https://git-lfs")


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.rstrip(b"\n"),
        lambda content: content + b"\n\n",
        lambda content: codecs.BOM_UTF8 + content,
        lambda content: codecs.BOM_UTF8 + content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\r\n", 3),
        lambda content: content.replace(b"\n", b"\r"),
    ],
    ids=["no last line end", "more line ends", "BOM", "BOM and CRLF", "mixed", "CR"],
)
def test_line_ends_and_marks_that_editors_make_mean_nothing(
    folder: Path, old: ASAAdapter, edit: Callable[[bytes], bytes]
) -> None:
    for name in (CONFIG, REPORT):
        (folder / name).write_bytes(edit((folder / name).read_bytes()))
    assert whole(folder, old) == "old"
    (folder / REPORT).write_bytes(edit((folder / REPORT).read_bytes().replace(b"old", b"odd")))
    with pytest.raises(AdapterFormatError, match=r"^report\.json: its SHA-256 is not the one in asa_config\.json"):
        ASAAdapter.from_pretrained(folder)


def test_a_file_called_plots_does_not_fail_a_save_without_plots(folder: Path, new: ASAAdapter) -> None:
    shutil.rmtree(folder / "plots", ignore_errors=True)
    (folder / "plots").write_text("mine")
    new.save_pretrained(folder)
    assert whole(folder, new) == "new"
    assert (folder / "plots").read_text() == "mine"


@pytest.mark.parametrize("make", [lambda path: path.write_text("x"), lambda path: path.symlink_to(path.parent.parent)])
def test_a_stranger_in_the_place_of_new_files_is_named_and_not_touched(
    folder: Path, old: ASAAdapter, new: ASAAdapter, make: Callable[[Path], Any]
) -> None:
    make(folder / ".asa-next")
    with pytest.raises(OSError, match=r"^cannot write into .*: \.asa-next in it is no folder; move it elsewhere$"):
        new.save_pretrained(folder)
    (folder / ".asa-next").unlink()
    assert whole(folder, old) == "old"


def test_text_with_the_line_ends_of_windows_loads(folder: Path, old: ASAAdapter) -> None:
    for name in (CONFIG, REPORT, CARD):
        content = (folder / name).read_bytes()
        assert b"\n" in content
        (folder / name).write_bytes(content.replace(b"\n", b"\r\n"))
    assert whole(folder, old) == "old"


def test_a_text_that_was_changed_is_refused_whatever_its_line_ends(folder: Path) -> None:
    (folder / REPORT).write_bytes((folder / REPORT).read_bytes().replace(b"old", b"odd").replace(b"\n", b"\r\n"))
    with pytest.raises(AdapterFormatError, match=r"^report\.json: its SHA-256 is not the one in asa_config\.json"):
        ASAAdapter.from_pretrained(folder)


@pytest.mark.parametrize("name", [VECTORS, ROUTER, PROBES])
def test_line_ends_rewritten_in_numbers_are_named(tmp_path: Path, sound: dict[str, bytes], name: str) -> None:
    clean = sealed({**sound, name: sound[name].replace(b"\r\n", b"\r") + b"\n"})
    for file, content in clean.items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / name).write_bytes(clean[name].replace(b"\n", b"\r\n"))
    with pytest.raises(
        AdapterFormatError, match=rf"^{name}: its line ends were rewritten .*: put `{name} -text` into"
    ):
        ASAAdapter.from_pretrained(tmp_path)


def test_the_checksum_of_an_older_report_is_over_its_bytes(tmp_path: Path, sound: dict[str, bytes]) -> None:
    files = sealed({**sound, REPORT: json.dumps({"a": 1}, indent=1).replace("\n", "\r\n").encode()})
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    assert ASAAdapter.from_pretrained(tmp_path).report == {"a": 1}
