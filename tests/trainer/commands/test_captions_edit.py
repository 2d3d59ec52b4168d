"""`lora captions replace`, `remove`, `add` and `undo`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lora_trainer.commands.captions import captions
from tests.support.pictures import write_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_picture(tmp_path / "10_hina" / "a.png", (8, 8), caption="hina, 1boy, hat")
    write_picture(tmp_path / "10_hina" / "b.png", (8, 8), caption="hina, smile")
    write_picture(tmp_path / "reg" / "1_woman" / "r.png", (8, 8), caption="1boy")
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(captions, [str(argument) for argument in arguments])


def texts(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.rglob("*.txt"))]


def test_replace_changes_tags_and_undo_restores_them(folder: Path) -> None:
    before = texts(folder)

    result = run("replace", folder, "1boy", "1girl")

    assert result.stdout == "Replace '1boy' by '1girl': 1 of 2 captions changed; `lora captions undo` takes it back\n"
    assert texts(folder) == ["hina, 1girl, hat", "hina, smile", "1boy"]
    assert run("undo", folder).stdout == "Undone: replace '1boy' by '1girl' (1 caption restored)\n"
    assert texts(folder) == before


def test_remove_takes_several_tags(folder: Path) -> None:
    run("remove", folder, "1boy", "smile")

    assert texts(folder) == ["hina, hat", "hina", "1boy"]


def test_add_puts_a_tag_first_where_another_is(folder: Path) -> None:
    run("add", folder, "man", "--first", "--where", "1boy")

    assert texts(folder) == ["man, hina, 1boy, hat", "hina, smile", "1boy"]


def test_text_is_replaced_inside_of_tags(folder: Path) -> None:
    run("replace", folder, "boy", "girl", "--text")
    run("remove", folder, "hi", "mi", "--text")

    assert texts(folder) == ["na, 1girl, hat", "na, sle", "1boy"]


def test_a_dry_run_shows_the_lines_and_writes_nothing(folder: Path) -> None:
    before = texts(folder)

    result = run("remove", folder, "1boy", "--dry-run")

    assert result.stdout == (
        "10_hina/a.txt\n- hina, 1boy, hat\n+ hina, hat\nWould remove '1boy': 1 of 2 captions would change\n"
    )
    assert texts(folder) == before
    assert not (folder / ".lora-captions").exists()


def test_a_dry_run_of_undo_shows_what_comes_back(folder: Path) -> None:
    run("remove", folder, "1boy")

    assert run("undo", folder, "--dry-run").stdout == (
        "10_hina/a.txt\n- hina, hat\n+ hina, 1boy, hat\nWould undo: remove '1boy'\n"
    )


def test_an_edit_of_nothing_leaves_no_trace(folder: Path) -> None:
    result = run("remove", folder, "cat")

    assert result.stdout == "Nothing to remove 'cat': none of 2 captions would change\n"
    assert not (folder / ".lora-captions").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["remove", "DIR", "a, b"], "'a, b' is no single tag"),
        (["remove", "DIR", ""], "a tag is empty"),
        (["replace", "DIR", "hina", ""], "NEW is empty"),
        (["add", "s3://bucket/data", "x"], "s3://bucket/data does not lie on this machine"),
        (["add", "/no/such/folder", "x"], "/no/such/folder is no folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, arguments: list[str], message: str) -> None:
    result = run(*(str(folder) if argument == "DIR" else argument for argument in arguments))

    assert result.exit_code == 64
    assert message in result.stderr


def test_undo_without_an_edit_says_so(folder: Path) -> None:
    result = run("undo", folder)

    assert result.exit_code == 65
    assert "has no edit to undo" in result.stderr
