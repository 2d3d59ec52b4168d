"""What is found in a dataset folder, and everything that is wrong with it at once."""

import shutil
from pathlib import Path

import pytest

from lora_api.dataset_spec import Captions, Dataset
from lora_trainer.data.dataset import DatasetSources, ScannedDataset, scan
from lora_trainer.errors import InvalidDataset
from tests.support.pictures import write_picture


def spec_of(**captions: object) -> Dataset:
    return Dataset(uri="s3://lora/data", captions=Captions(**captions), workers=2)


def scan_root(root: Path, spec: Dataset) -> ScannedDataset:
    return scan(DatasetSources(root=root), spec)


def problems_of(root: Path, spec: Dataset | None = None) -> list[str]:
    with pytest.raises(InvalidDataset) as caught:
        scan_root(root, spec or spec_of())
    return [line.removeprefix("- ") for line in str(caught.value).splitlines()[1:]]


def test_a_picture_gets_everything_the_convention_says(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "3_hina woman" / "a.png", (40, 30), caption="hina woman, smiling")

    (example,) = scan_root(tmp_path, spec_of()).examples

    assert (example.index, example.path, example.key) == (0, path, "3_hina woman/a.png")
    assert (example.width_px, example.height_px) == (40, 30)
    assert (example.caption, example.caption_source) == ("hina woman, smiling", "file")
    assert (example.repeats, example.is_regularization, example.folder) == (3, False, "3_hina woman")


def test_the_order_is_concepts_by_name_then_regularization_files_by_name(tmp_path: Path) -> None:
    for key in ("reg/1_man/b.png", "2_b/z.png", "10_a/b.PNG", "10_a/a.jpg", "reg/1_lady/c.webp"):
        write_picture(tmp_path / key)

    examples = scan_root(tmp_path, spec_of()).examples

    keys = ["10_a/a.jpg", "10_a/b.PNG", "2_b/z.png", "reg/1_lady/c.webp", "reg/1_man/b.png"]
    assert [example.key for example in examples] == keys
    assert [example.is_regularization for example in examples] == [False, False, False, True, True]


def test_a_missing_caption_gives_the_text_of_the_folder(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_sks_my man" / "a.png")

    scanned = scan_root(tmp_path, spec_of())

    assert (scanned.examples[0].caption, scanned.examples[0].caption_source) == ("sks_my man", "folder")
    assert scanned.warnings == ("1 pictures have no .txt file and get their folder's text: 3_sks_my man/a.png.",)


def test_a_missing_caption_may_be_an_error(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_hina" / "a.png")

    assert problems_of(tmp_path, spec_of(missing="Fail")) == [
        "3_hina/a.png has no caption file a.txt; write one or set spec.dataset.captions.missing"
    ]


def test_another_extension_may_be_set_and_its_case_does_not_matter(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "3_hina" / "A.png")
    path.with_name("A.CAPTION").write_text("hina here")

    assert scan_root(tmp_path, spec_of(extension=".caption")).examples[0].caption == "hina here"


def test_captions_with_an_unread_extension_are_a_warning(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "3_hina" / "a.png")
    path.with_suffix(".caption").write_text("hina here")

    warnings = scan_root(tmp_path, spec_of()).warnings

    assert warnings[1] == (
        "1 of them have a caption file with another extension than .txt; "
        "set spec.dataset.captions.extension if those are meant."
    )


def test_a_concept_that_no_caption_names_is_a_warning(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_hina woman" / "a.png", caption="a lady smiling")
    write_picture(tmp_path / "3_kai" / "a.png", caption="kai smiling")
    write_picture(tmp_path / "reg" / "1_woman" / "a.png", caption="a lady")

    assert scan_root(tmp_path, spec_of()).warnings == (
        "No caption of 3_hina woman holds 'hina' or 'woman'; add the words that shall call it up.",
    )


def test_a_concept_folder_without_pictures_is_a_warning(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_hina" / "a.png", caption="hina")
    (tmp_path / "2_kai").mkdir()

    assert scan_root(tmp_path, spec_of()).warnings == ("2_kai holds no pictures.",)


def test_hidden_files_and_other_files_are_left_out(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_hina" / "a.png", caption="hina")
    write_picture(tmp_path / ".thumbnails" / "a.png")
    write_picture(tmp_path / "3_hina" / "._a.png")
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("x")

    assert [example.key for example in scan_root(tmp_path, spec_of()).examples] == ["3_hina/a.png"]


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("a.png", "a.png lies in no concept folder; move it into a folder such as `10_concept`"),
        ("reg/a.png", "reg/a.png lies in no concept folder; move it into a folder such as `10_concept`"),
        ("hina/a.png", "hina/ holds pictures, but its name does not say their repeats; rename it to `10_hina`"),
        ("0_hina/a.png", "0_hina/ says 0 repeats, but 1 to 100000 are possible; rename it to `10_hina`"),
        ("100001_a/a.png", "100001_a/ says 100001 repeats, but 1 to 100000 are possible; rename it to `10_a`"),
        ("10/a.png", "10/ holds pictures, but its name does not say their repeats; rename it to `10_concept`"),
        ("-3_x/a.png", "-3_x/ holds pictures, but its name does not say their repeats; rename it to `10_-3_x`"),
        ("reg/man/a.png", "reg/man/ holds pictures, but its name does not say their repeats; rename it to `10_man`"),
        ("3_hina/in/a.png", "3_hina/in/ holds pictures, but nested folders are not read; move them up"),
    ],
)
def test_a_picture_that_would_be_left_out_is_a_problem(tmp_path: Path, key: str, problem: str) -> None:
    write_picture(tmp_path / "1_ok" / "a.png", caption="ok")
    write_picture(tmp_path / key)

    assert problems_of(tmp_path) == [problem]


def test_an_empty_dataset_is_a_problem(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == ["it holds no training picture; put pictures into a folder such as `10_concept`"]


def test_regularization_alone_is_a_problem(tmp_path: Path) -> None:
    write_picture(tmp_path / "reg" / "1_man" / "a.png")

    assert problems_of(tmp_path)[0].startswith("it holds no training picture")


def test_a_folder_name_without_text_needs_captions(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_" / "a.png")

    assert problems_of(tmp_path) == ["3_/a.png has no caption file a.txt, and its folder's name has no text; write one"]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    write_picture(tmp_path / "loose.png")
    (tmp_path / "1_ok").mkdir()
    (tmp_path / "1_ok" / "broken.png").write_bytes(b"no picture")
    write_picture(tmp_path / "1_ok" / "latin.png")
    (tmp_path / "1_ok" / "latin.txt").write_bytes(b"f\xfcr")
    write_picture(tmp_path / "1_ok" / "empty.png", caption="")

    assert problems_of(tmp_path) == [
        "loose.png lies in no concept folder; move it into a folder such as `10_concept`",
        "1_ok/broken.png is no picture that can be read; convert it to PNG or JPEG",
        "1_ok/empty.txt is empty; write a caption or remove the file",
        "1_ok/latin.txt is not UTF-8 (byte 0xfc at position 1); save it as UTF-8",
    ]


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")

    with pytest.raises(InvalidDataset, match=r"spec\.dataset\.uri: a\.png is a file"):
        scan_root(path, spec_of())


def make_dataset(root: Path) -> Path:
    write_picture(root / "3_hina" / "a.png", caption="hina")
    write_picture(root / "3_hina" / "b.png", color=(1, 2, 3))
    return root


def test_the_same_content_has_the_same_digest_anywhere_and_with_any_workers(tmp_path: Path) -> None:
    first = make_dataset(tmp_path / "one")
    second = Path(shutil.copytree(first, tmp_path / "two"))
    single = Dataset(uri="s3://lora/data", workers=0)

    assert scan_root(first, spec_of()).digest == scan_root(second, single).digest


@pytest.mark.parametrize("change", ["picture", "caption", "name"])
def test_any_change_of_content_changes_the_digest(tmp_path: Path, change: str) -> None:
    root = make_dataset(tmp_path)
    before = scan_root(root, spec_of()).digest

    match change:
        case "picture":
            write_picture(root / "3_hina" / "b.png", color=(1, 2, 4))
        case "caption":
            (root / "3_hina" / "a.txt").write_text("hina smiling")
        case _:
            (root / "3_hina").rename(root / "4_hina")

    assert scan_root(root, spec_of()).digest != before


def test_each_picture_has_a_digest_of_its_own(tmp_path: Path) -> None:
    root = make_dataset(tmp_path)
    before = scan_root(root, spec_of()).digests

    (root / "3_hina" / "a.txt").write_text("hina smiling")

    now = scan_root(root, spec_of()).digests
    assert [path for path in before if before[path] != now[path]] == ["3_hina/a.png"]
    assert list(now) == ["3_hina/a.png", "3_hina/b.png"]


class Stopped(Exception):
    """What a caller raises to end a scan."""


def test_a_scan_ends_when_its_caller_says_so(tmp_path: Path) -> None:
    for index in range(20):
        write_picture(tmp_path / "3_hina" / f"{index:02}.png", caption="hina")
    seen = 0

    def stop() -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise Stopped

    with pytest.raises(Stopped):
        scan(DatasetSources(root=tmp_path), spec_of(), on_picture=stop)

    assert seen == 3
