"""Which text a caption file gives."""

from pathlib import Path

import pytest

from lora_trainer.data.captions import UnusableCaption, holds_token, read_caption


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
    assert read_caption(write(tmp_path, data)) == caption


def test_other_encodings_are_refused_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(UnusableCaption, match=r"is not UTF-8 \(byte 0xfc at position 1\); save it as UTF-8"):
        read_caption(write(tmp_path, "für".encode("latin-1")))


def test_utf_16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableCaption, match="is not UTF-8"):
        read_caption(write(tmp_path, "hina".encode("utf-16")))


@pytest.mark.parametrize(
    ("data", "cure"),
    [(b"", "write a caption or remove the file"), (b" \n\t\n", "write a caption"), (b"\nhina", "to the first line")],
)
def test_an_empty_first_line_is_refused(tmp_path: Path, data: bytes, cure: str) -> None:
    with pytest.raises(UnusableCaption, match=f"has an empty first line; .*{cure}"):
        read_caption(write(tmp_path, data))


@pytest.mark.parametrize(
    ("caption", "class_tokens", "holds"),
    [
        ("photo of HINA, smiling", "hina woman", True),
        ("photo of a woman", "hina woman", True),
        ("photo of hinata", "hina", False),
        ("sks-man standing", "sks man", True),
        ("a dog", "hina woman", False),
    ],
)
def test_a_caption_holds_a_class_token_as_a_whole_word(caption: str, class_tokens: str, holds: bool) -> None:
    assert holds_token(caption, class_tokens) is holds
