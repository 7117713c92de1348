import hashlib
import os
from pathlib import Path

import pytest
from interruptions import Killed, break_off

from asa_adapter import AdapterFormatError
from asa_adapter.files import decode_utf8, read_bounded, read_current, read_jsonl, replace_files, sha256, write_atomic
from asa_adapter.strict_json import parse_json

needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


# --- read_bounded


def test_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00\xffabc")
    assert read_bounded(tmp_path / "a", 100) == b"\x00\xffabc"


def test_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"


def test_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123456")
    with pytest.raises(AdapterFormatError, match=r"^a: 6 bytes; expected at most 5$"):
        read_bounded(tmp_path / "a", 5)


def test_huge_sparse_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(2**36)
    with pytest.raises(AdapterFormatError, match=r"^big: 68719476736 bytes; expected at most 1000$"):
        read_bounded(tmp_path / "big", 1000)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs a file that is longer than it says")
def test_file_that_is_longer_than_it_says_is_refused() -> None:
    with pytest.raises(AdapterFormatError, match=r"^status: grew past 10 bytes while it was read$"):
        read_bounded(Path("/proc/self/status"), 10)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterFormatError, match=f"^a: missing from {tmp_path}$"):
        read_bounded(tmp_path / "a", 10)


def test_name_with_a_zero_byte_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterFormatError, match="missing from"):
        read_bounded(tmp_path / "a\0b", 10)


def test_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(AdapterFormatError, match=r"^a: expected a regular file in "):
        read_bounded(tmp_path / "a", 10)


@needs_fifo
def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(AdapterFormatError, match=r"^a: expected a regular file in "):
        read_bounded(tmp_path / "a", 10)


@needs_fifo
def test_link_to_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").symlink_to(tmp_path / "pipe")
    with pytest.raises(AdapterFormatError, match=r"^a: expected a regular file in "):
        read_bounded(tmp_path / "a", 10)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
def test_endless_device_is_refused() -> None:
    with pytest.raises(AdapterFormatError, match=r"^zero: expected a regular file in /dev$"):
        read_bounded(Path("/dev/zero"), 10)


def test_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"content")
    (tmp_path / "a").symlink_to(tmp_path / "blob")
    assert read_bounded(tmp_path / "a", 10) == b"content"


def test_link_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "gone")
    with pytest.raises(AdapterFormatError, match=r"^a: missing from "):
        read_bounded(tmp_path / "a", 10)


def test_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    with pytest.raises(AdapterFormatError, match=r"^a: missing from "):
        read_bounded(tmp_path / "a", 10)


def test_link_to_a_large_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"123456")
    (tmp_path / "a").symlink_to(tmp_path / "blob")
    with pytest.raises(AdapterFormatError, match=r"^a: 6 bytes; expected at most 5$"):
        read_bounded(tmp_path / "a", 5)


# --- text and JSON


def test_utf8_is_decoded() -> None:
    assert decode_utf8("Wörter ☔".encode(), "a.json") == "Wörter ☔"


def test_other_bytes_are_refused_with_their_place() -> None:
    with pytest.raises(AdapterFormatError, match=r"^a.json: not UTF-8 text \(invalid start byte at byte 2\)$"):
        decode_utf8(b"ab\xff", "a.json")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ("18446744073709551616", 2**64),
        ("-0.0", -0.0),
        ('"NaN"', "NaN"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_json_is_parsed(text: str, value: object) -> None:
    assert repr(parse_json(text, "a.json")) == repr(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("{'a': 1}", "Expecting property name"),
        ("[1] []", "Extra data"),
        ("\ufeff1", "Unexpected UTF-8 BOM"),
        ("NaN", "found NaN; expected finite numbers"),
        ("[Infinity]", "found Infinity; expected finite numbers"),
        ("-Infinity", "found -Infinity; expected finite numbers"),
        ("1e999", "found 1e999; expected finite numbers"),
        ("-1e999", "found -1e999; expected finite numbers"),
        ("9" * 500 + ".5", "found 9{40}; expected finite numbers"),
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice in one object"),
        ('[{"x": {"a": 1, "a": 1}}]', "the key 'a' stands twice in one object"),
        ("9" * 5000, "Exceeds the limit"),
        ("[" * 100_000, "recursion"),
        ('{"a":' * 100_000, "recursion"),
        ('["\\ud800"]', "surrogates not allowed"),
        ('{"\\uDFFF": 1}', "surrogates not allowed"),
    ],
    ids=lambda value: value[:30],
)
def test_other_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(AdapterFormatError, match=f"^a.json: not valid JSON: .*{message}"):
        parse_json(text, "a.json")


def test_long_double_key_is_shortened_in_the_error() -> None:
    key = "k" * 10_000
    with pytest.raises(AdapterFormatError) as caught:
        parse_json(f'{{"{key}": 1, "{key}": 2}}', "a.json")
    assert len(str(caught.value)) < 300


def test_sha256_of_a_known_text() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(b"") == hashlib.sha256().hexdigest()


# --- write_atomic


@pytest.mark.parametrize("content", [b"\x00\xff\r\n", "Wörter ☔\nnext\r\n", ""], ids=["bytes", "text", "nothing"])
def test_content_is_written_as_it_is(tmp_path: Path, content: bytes | str) -> None:
    write_atomic(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == (content.encode() if isinstance(content, str) else content)


def test_old_content_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a much longer old text")
    write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_readers_of_the_old_file_keep_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with (tmp_path / "a").open() as reader:
        write_atomic(tmp_path / "a", "new")
        assert reader.read() == "old"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_old_content_survives_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (tmp_path / "a").write_text("old")
    write_bytes = Path.write_bytes

    def write_half(path: Path, content: bytes) -> int:
        write_bytes(path, content[: len(content) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(type(error)):
        write_atomic(tmp_path / "a", "new content")
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_no_part_is_left_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write_bytes = Path.write_bytes

    def write_half(path: Path, content: bytes) -> int:
        write_bytes(path, content[: len(content) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(type(error)):
        write_atomic(tmp_path / "a", "new content")
    assert list(tmp_path.iterdir()) == []


def test_old_content_survives_when_renaming_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise OSError("renaming failed")

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="renaming failed"):
        write_atomic(tmp_path / "a", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_no_part_is_left_when_the_target_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError, match="a"):
        write_atomic(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_text_that_is_not_unicode_leaves_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "a", "\ud800")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "gone" / "a", "new")


# --- replace_files, read_current

OLD, NEW = ({"a": word, "inner/b": word} for word in (b"old", b"new"))


def current(folder: Path) -> dict[str, bytes]:
    return {name: read_current(folder, name, 100) for name in OLD}


@pytest.mark.parametrize("done_first", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("dead", [False, True], ids=["interrupted", "killed"])
def test_replacing_that_breaks_off_anywhere_leaves_all_old_or_all_new(
    tmp_path: Path, dead: bool, done_first: bool
) -> None:
    seen = []
    for at in range(1, 100):
        folder = tmp_path / str(at)
        replace_files(folder, OLD)
        with pytest.MonkeyPatch.context() as patch:
            break_off(patch, at, dead=dead, done_first=done_first)
            try:
                replace_files(folder, NEW)
                break
            except Killed:
                seen.append(current(folder))
        replace_files(folder, OLD)  # the next one ends it, and then does its own
        assert current(folder) == OLD
        assert {name: (folder / name).read_bytes() for name in OLD} == OLD
        assert not (folder / ".asa-next").exists()
    begun = seen.index(NEW)
    assert seen == [OLD] * begun + [NEW] * (len(seen) - begun)
    assert begun > 3
    assert len(seen) > begun + 2


def test_replacing_ends_what_another_process_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process is stopped while it moves its files; another replaces them meanwhile; then the first goes on."""
    replace_files(tmp_path, OLD)
    third = {name: b"third" for name in OLD}
    replace, moved = os.replace, []

    def with_another_in_between(source: Path, target: Path) -> None:
        moved.append(target)
        if len(moved) == 2:
            replace_files(tmp_path, third)
        replace(source, target)

    monkeypatch.setattr(os, "replace", with_another_in_between)
    replace_files(tmp_path, NEW)
    assert current(tmp_path) == third
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "inner"]


# --- read_jsonl


def test_jsonl_values_come_with_their_line_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n  \n[2]\r\n"last line without an end"', encoding="utf-8")
    assert read_jsonl(tmp_path / "a.jsonl") == [(1, {"a": 1}), (4, [2]), (5, "last line without an end")]


def test_jsonl_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('"one\u2028two\u0085three"\n', encoding="utf-8")
    assert read_jsonl(tmp_path / "a.jsonl") == [(1, "one\u2028two\u0085three")]


def test_jsonl_of_nothing_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    assert read_jsonl(tmp_path / "a.jsonl") == []


def test_missing_jsonl_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_jsonl(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": 1',
        b"{'a': 1}",
        b'{"a": 1} {"a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": "\xff"}',
        b"[" * 100_000,
    ],
    ids=["cut", "single quotes", "two values", "NaN", "1e999", "double key", "not UTF-8", "deep"],
)
def test_jsonl_line_that_is_not_json_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(ValueError, match=f"^{path}, line 3: "):
        read_jsonl(path)


def test_a_git_lfs_pointer_in_place_of_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n")
    with pytest.raises(
        ValueError, match=r"a\.jsonl: a Git LFS pointer, in place of the file itself: run `git lfs inst"
    ):
        read_jsonl(tmp_path / "a.jsonl")


def test_jsonl_line_with_a_byte_order_mark_is_read_without_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"a": 1}\n\ufeff\n\ufeff{"a": "\ufeff"}\n', encoding="utf-8")
    assert read_jsonl(path) == [(1, {"a": 1}), (3, {"a": "\ufeff"})]
