"""Which file holds the caption of a picture, and which text it gives."""

from pathlib import Path

import pytest

from lora_trainer.data.captions import (
    UnusableCaption,
    by_name,
    caption_lines,
    find_caption,
    missing_tokens,
    read_caption,
)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "x.txt"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "caption"),
    [
        (b"hina woman, smiling\n", "hina woman, smiling"),
        (b"first line\nsecond line\n", "first line"),
        (b"first line\r\nsecond\r\n", "first line"),
        ("\ufeffhina".encode(), "hina"),
        (b"  padded \t\n", "padded"),
        ("höhle 🦊".encode(), "höhle 🦊"),
    ],
    ids=["plain", "first line only", "windows ends", "byte-order mark", "blanks", "unicode"],
)
def test_a_caption_is_the_first_line(tmp_path: Path, data: bytes, caption: str) -> None:
    assert read_caption(write(tmp_path, data)) == (caption,)


def test_every_line_that_is_not_blank_may_be_wanted(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff\r\n one \r\n\t\r\ntwo".encode())

    assert read_caption(path, every_line=True) == ("one", "two")


def test_other_encodings_are_refused_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(UnusableCaption, match=r"is not UTF-8 \(byte 0xfc at position 1\); save it as UTF-8"):
        read_caption(write(tmp_path, "für".encode("latin-1")))


def test_utf_16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableCaption, match="is not UTF-8"):
        read_caption(write(tmp_path, "hina".encode("utf-16")))


@pytest.mark.parametrize("every_line", [False, True])
@pytest.mark.parametrize("data", [b"", b" \n\t\n"])
def test_an_empty_file_is_refused(tmp_path: Path, data: bytes, every_line: bool) -> None:
    with pytest.raises(UnusableCaption, match="is empty; write a caption or remove the file"):
        read_caption(write(tmp_path, data), every_line=every_line)


def test_an_empty_first_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableCaption, match="has an empty first line; move the caption to the first line"):
        read_caption(write(tmp_path, b"\nhina"))


def test_a_text_has_lines_like_a_file() -> None:
    assert caption_lines("a \n b", every_line=True) == ("a", "b")
    assert caption_lines("a \n b", every_line=False) == ("a",)


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        ("hina", "hina.txt"),
        ("HINA", "hina.txt"),
        ("hina_10_20_30_40", "hina.txt"),
        ("my_hina_10_20_30_40", "My_hina.TXT"),
        ("hina_20_30_40", None),
        ("kai", None),
    ],
)
def test_numbers_of_a_face_may_be_missing_in_the_name_of_the_caption(stem: str, found: str | None) -> None:
    files = by_name(Path(name) for name in ("hina.txt", "My_hina.TXT", "hina.caption"))

    path = find_caption(stem, ".txt", files)

    assert (path.name if path else None) == found


def test_the_whole_name_comes_before_the_one_without_numbers() -> None:
    files = by_name([Path("a.txt"), Path("a_1_2_3_4.txt")])

    assert find_caption("a_1_2_3_4", ".txt", files) == Path("a_1_2_3_4.txt")


@pytest.mark.parametrize("stem", ["a", "A"])
def test_of_names_that_differ_in_case_the_same_one_is_meant(stem: str) -> None:
    files = by_name([Path("A.txt"), Path("a.txt")])

    assert find_caption(stem, ".txt", files) == Path(f"{stem}.txt")


@pytest.mark.parametrize(
    ("texts", "class_tokens", "missing"),
    [
        ("photo of HINA, smiling woman", "hina woman", []),
        ("photo of a woman", "hina woman", ["hina"]),
        ("photo of hinata", "hina", ["hina"]),
        ("a sks man standing", "sks-man", []),
        ("a dog", "hina woman", ["hina", "woman"]),
    ],
)
def test_words_that_no_caption_holds_are_told(texts: str, class_tokens: str, missing: list[str]) -> None:
    assert missing_tokens(texts, class_tokens) == missing


def test_a_file_that_is_larger_than_any_caption_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(UnusableCaption, match=r"^has more than 1,048,576 bytes; write a caption or remove the file$"):
        read_caption(path)
