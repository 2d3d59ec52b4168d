"""What `metadata.jsonl` says, and everything that is wrong with it, line by line."""

import json
from pathlib import Path

import pytest

from lora_trainer.data.metadata_file import Entry, read_metadata
from tests.support.pictures import write_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "in/c.png", "masks/a.png"):
        write_picture(tmp_path / name, (8, 8))
    (tmp_path / "a.txt").touch()
    return tmp_path


def write(folder: Path, *lines: object) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metadata.jsonl").write_text("\n".join(texts))


def problems_of(folder: Path, *lines: object, is_root: bool = True) -> list[str]:
    write(folder, *lines)
    return read_metadata(folder, is_root=is_root)[1]


def test_a_line_says_everything_about_its_picture(folder: Path) -> None:
    line = {"file": "in/c.png", "caption": "hina", "repeats": 3, "mask": "masks/a.png", "regularization": True}
    write(folder, line)

    entries, problems = read_metadata(folder, is_root=True)

    path = folder / "in" / "c.png"
    assert entries == {path: Entry(path, "hina", 3, folder / "masks" / "a.png", is_regularization=True)}
    assert problems == []


def test_only_the_file_is_needed(folder: Path) -> None:
    write(folder, {"file": "./a.png"})

    entries, problems = read_metadata(folder, is_root=False)

    assert (list(entries.values()), problems) == ([Entry(folder / "a.png", None, None, None, False)], [])


def test_blank_lines_windows_ends_and_a_byte_order_mark_do_not_matter(folder: Path) -> None:
    (folder / "metadata.jsonl").write_bytes('\ufeff{"file": "a.png"}\r\n\r\n{"file": "b.png"}\r\n'.encode())

    entries, problems = read_metadata(folder, is_root=True)

    assert ([path.name for path in entries], problems) == (["a.png", "b.png"], [])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "{file}",
            "is no JSON (Expecting property name enclosed in double quotes at column 2); write one object a line",
        ),
        (
            '{"repeats": ' + "9" * 5000 + "}",
            "holds too long a number or too many brackets; write one flat object a line",
        ),
        ('{"file": ' + "[" * 100_000, "holds too long a number or too many brackets; write one flat object a line"),
        ("3", 'is no JSON object; write one a line, such as {"file": "a.png", "caption": "…"}'),
        ('["a.png"]', 'is no JSON object; write one a line, such as {"file": "a.png", "caption": "…"}'),
        ('{"file": "a.png", "file": "b.png"}', "holds a key twice; remove one"),
        ({}, "has no key 'file'; add the path of its picture"),
        ({"caption": "x"}, "has no key 'file'; add the path of its picture"),
        (
            {"file_name": "a.png"},
            'has the unknown key "file_name"; known are file, caption, repeats, mask, regularization',
        ),
        ({"file": 3}, "has file 3; write a text"),
        ({"file": "a.png", "caption": None}, "has caption null; write a text"),
        ({"file": "a.png", "caption": " "}, "has an empty caption; write one or remove the key"),
        ({"file": "a.png", "repeats": True}, "has repeats true; write a whole number"),
        ({"file": "a.png", "repeats": 2.0}, "has repeats 2.0; write a whole number"),
        ({"file": "a.png", "repeats": 0}, "has repeats 0; write a number from 1 to 100000"),
        ({"file": "a.png", "regularization": 1}, "has regularization 1; write true or false"),
        (
            {"file": "a.png", "caption": "\ud800"},
            "has half of a surrogate pair (\\ud800 to \\udfff) in caption; write the character itself",
        ),
        ({"file": "../a.png"}, 'has file "../a.png", which leads out of the folder; write a path inside it'),
        ({"file": "/a.png"}, 'has file "/a.png", which leads out of the folder; write a path inside it'),
        (
            {"file": "a.png", "mask": "../a.png"},
            'has mask "../a.png", which leads out of the folder; write a path inside it',
        ),
        (
            {"file": "z.png"},
            'has file "z.png", which does not exist; correct the path (it is relative to metadata.jsonl)',
        ),
        (
            {"file": "a" * 300 + ".png"},
            f'has file "{"a" * 39}…, which does not exist; correct the path (it is relative to metadata.jsonl)',
        ),
        ({"file": "in\\c.png"}, 'has file "in\\\\c.png", which does not exist; write / between folders'),
        ({"file": ".in/c.png"}, 'has file ".in/c.png", which is hidden by a dot; rename it'),
        ({"file": "a.txt"}, 'has file "a.txt", which is no picture by its name; list pictures only'),
    ],
)
def test_what_is_wrong_with_a_line_is_told_with_its_number(folder: Path, line: object, problem: str) -> None:
    assert problems_of(folder, {"file": "b.png"}, "", line) == [f"line 3 {problem}"]


def test_a_picture_is_listed_once(folder: Path) -> None:
    problems = problems_of(folder, {"file": "a.png"}, {"file": "./a.png"})

    assert problems == ["line 2 lists a.png a second time; remove one line"]


def test_a_picture_is_no_mask(folder: Path) -> None:
    problems = problems_of(folder, {"file": "a.png", "mask": "b.png"}, {"file": "b.png"})

    assert problems == ["lists b.png as a picture and as a mask; remove one"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            {"file": "in/c.png"},
            "line 1 lists in/c.png, which lies in a folder inside; only the dataset's own may do so",
        ),
        (
            {"file": "a.png", "regularization": False},
            "line 1 has the key regularization, which belongs into the dataset's own metadata.jsonl only",
        ),
    ],
)
def test_a_folders_own_file_is_about_its_pictures_only(folder: Path, line: object, problem: str) -> None:
    assert problems_of(folder, line, is_root=False) == [problem]


def test_an_empty_file_is_a_problem(folder: Path) -> None:
    assert problems_of(folder, "", "") == ["lists no picture; write lines or remove the file"]


def test_another_encoding_is_a_problem(folder: Path) -> None:
    (folder / "metadata.jsonl").write_bytes(b'{"file": "\xfc.png"}')

    assert read_metadata(folder, is_root=True) == ({}, ["is not UTF-8 (position 10); save it as UTF-8"])


def test_a_list_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / "metadata.jsonl").open("wb") as file:
        file.truncate((64 << 20) + 1)

    entries, problems = read_metadata(folder, is_root=True)

    assert entries == {}
    assert problems == ["has more than 67,108,864 bytes; shorten it, or use folders with caption files instead"]


def test_a_caption_is_as_long_as_in_a_file_of_its_own_at_most(folder: Path) -> None:
    assert problems_of(folder, {"file": "a.png", "caption": "ä" * (1 << 19)}) == []
    assert problems_of(folder, {"file": "a.png", "caption": "ä" * (1 << 19) + "a"}) == [
        "line 1 has a caption of more than 1,048,576 bytes; shorten it"
    ]


def test_all_problems_are_told_at_once(folder: Path) -> None:
    assert len(problems_of(folder, {"file": "x.png"}, "{", {"file": "a.png", "tags": "x"})) == 3
