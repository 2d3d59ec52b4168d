"""What an edit would change in a folder, and that writing it can be taken back."""

from pathlib import Path

import pytest

from lora_trainer.curation.caption_edit import caption_files, plan_edit
from lora_trainer.curation.edits import add_tag, remove_tags
from lora_trainer.curation.journal import carry_out, last_entry, undo
from lora_trainer.errors import InvalidDataset
from tests.support.pictures import write_picture

ADD = add_tag("new", separator=",")


def caption(path: Path, content: bytes) -> Path:
    write_picture(path.with_suffix(".png"), (8, 8))
    path.write_bytes(content)
    return path


def edit(root: Path, tag: str = "new") -> None:
    carry_out(root, f"add {tag}", plan_edit(root, add_tag(tag, separator=","), extension=".txt").changes)


def test_captions_are_files_of_pictures_outside_of_reg_and_masks(tmp_path: Path) -> None:
    wanted = [caption(tmp_path / name, b"x") for name in ("10_a/1.txt", "flat.txt", "deep/er/2.TXT")]
    write_picture(tmp_path / "10_a" / "face_1_2_3_4.png", (8, 8))
    wanted.append(tmp_path / "10_a" / "face.txt")
    wanted[-1].write_text("x")
    for name in ("reg/1_a/1.txt", "mask/1.txt", ".hidden/1.txt"):
        caption(tmp_path / name, b"x")
    (tmp_path / "10_a" / "notes.txt").write_text("no caption")

    assert caption_files(tmp_path, extension=".txt") == sorted(wanted)


def test_the_bytes_around_the_edit_stay(tmp_path: Path) -> None:
    path = caption(tmp_path / "1.txt", b"\xef\xbb\xbf\xe7\x8c\xab, hat \r\n\r\nline two\r\n")

    edit(tmp_path)

    assert path.read_bytes() == b"\xef\xbb\xbf\xe7\x8c\xab, hat, new \r\n\r\nline two, new\r\n"


def test_rights_and_links_stay(tmp_path: Path) -> None:
    path = caption(tmp_path / "data" / "1.txt", b"hat")
    path.rename(tmp_path / "kept.txt")
    (tmp_path / "kept.txt").chmod(0o600)
    path.symlink_to(tmp_path / "kept.txt")

    edit(tmp_path / "data")

    assert path.is_symlink()
    assert (tmp_path / "kept.txt").read_text() == "hat, new"
    assert (tmp_path / "kept.txt").stat().st_mode & 0o777 == 0o600


def test_a_caption_that_would_be_empty_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    caption(tmp_path / "1.txt", b"hat")
    caption(tmp_path / "2.txt", b"hat, x")

    with pytest.raises(InvalidDataset, match=r"1\.txt would have no caption left"):
        plan_edit(tmp_path, remove_tags(["hat"], separator=","), extension=".txt")


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    caption(tmp_path / "1.txt", b"\xff\xfeh\x00")

    with pytest.raises(InvalidDataset, match=r"1\.txt is not UTF-8; save it as UTF-8"):
        plan_edit(tmp_path, ADD, extension=".txt")


def test_a_folder_without_captions_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png", (8, 8))

    with pytest.raises(InvalidDataset, match=r"no picture below it has a \.txt file"):
        plan_edit(tmp_path, ADD, extension=".txt")


def test_edits_are_taken_back_one_by_one_to_the_byte(tmp_path: Path) -> None:
    files = [caption(tmp_path / "1.txt", b"hat\r\n"), caption(tmp_path / "2.txt", b"x")]
    edit(tmp_path, "one")
    between = [file.read_bytes() for file in files]
    edit(tmp_path, "two")

    for expected, said in ((between, "add two"), ([b"hat\r\n", b"x"], "add one")):
        entry = last_entry(tmp_path)
        assert entry is not None
        assert entry.command == said
        undo(tmp_path, entry)
        assert [file.read_bytes() for file in files] == expected
    assert last_entry(tmp_path) is None


def test_undoing_refuses_files_that_were_changed_since_and_leaves_all(tmp_path: Path) -> None:
    files = [caption(tmp_path / f"{number}.txt", b"hat") for number in range(3)]
    edit(tmp_path)
    files[1].write_text("somebody's work")
    files[2].unlink()
    entry = last_entry(tmp_path)
    assert entry is not None

    with pytest.raises(InvalidDataset) as caught:
        undo(tmp_path, entry)

    assert "1.txt was changed since the edit" in str(caught.value)
    assert "2.txt is gone since the edit" in str(caught.value)
    assert files[0].read_text() == "hat, new"
    assert last_entry(tmp_path) == entry


def test_a_half_done_edit_can_be_undone(tmp_path: Path) -> None:
    files = [caption(tmp_path / f"{number}.txt", b"hat") for number in range(3)]
    planned = plan_edit(tmp_path, ADD, extension=".txt")
    files[1].write_text("changed meanwhile")

    with pytest.raises(InvalidDataset, match=r"1\.txt was changed by somebody else meanwhile"):
        carry_out(tmp_path, "add new", planned.changes)
    files[1].write_text("hat")
    entry = last_entry(tmp_path)
    assert entry is not None

    assert undo(tmp_path, entry) == ["0.txt"]
    assert [file.read_text() for file in files] == ["hat"] * 3


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    caption(tmp_path / "1.txt", b"hat")
    edit(tmp_path)
    (tmp_path / ".lora-captions" / "000001.json").write_text("{")

    with pytest.raises(InvalidDataset, match=r"\.lora-captions/000001\.json cannot be read"):
        last_entry(tmp_path)
