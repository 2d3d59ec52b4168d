"""Pictures that come from elsewhere than one root: subsets, metadata, regularisation of its own."""

import json
import os
from pathlib import Path

import pytest

from lora_api.dataset_spec import CaptionOverrides, Captions, Dataset, Regularization, Subset
from lora_trainer.data.dataset import DatasetSources, ScannedDataset, scan
from lora_trainer.errors import InvalidDataset
from tests.support.pictures import write_picture

SPEC = Dataset(uri="s3://lora/my-data", workers=0)


def write_metadata(folder: Path, *lines: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


def scan_root(root: Path, spec: Dataset = SPEC) -> ScannedDataset:
    return scan(DatasetSources(root=root), spec)


def problems_of(sources: DatasetSources, spec: Dataset = SPEC) -> list[str]:
    with pytest.raises(InvalidDataset) as caught:
        scan(sources, spec)
    return [line.removeprefix("- ") for line in str(caught.value).splitlines()[1:]]


def test_subsets_come_in_the_order_of_the_spec_with_their_own_rules(tmp_path: Path) -> None:
    write_picture(tmp_path / "one" / "a.png", caption="zwx, blue")
    write_picture(tmp_path / "two" / "a.png")
    spec = Dataset(
        subsets=(
            Subset(uri="s3://lora/zwx", repeats=4, captions=CaptionOverrides(shuffle=True)),
            Subset(uri="s3://lora/ordinary", class_tokens="man", is_regularization=True),
        )
    )

    first, second = scan(DatasetSources(subsets=(tmp_path / "one", tmp_path / "two")), spec).examples

    assert (first.key, first.folder, first.repeats, first.caption) == ("zwx/a.png", "zwx", 4, "zwx, blue")
    assert (first.captions.shuffle, second.captions.shuffle) == (True, False)
    assert (second.key, second.caption, second.class_tokens) == ("ordinary/a.png", "man", "man")
    assert (first.is_regularization, second.is_regularization) == (False, True)


def test_the_order_of_subsets_changes_the_digest_but_no_picture_s_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_picture(tmp_path / name / "a.png", caption="zwx")
    one, two = Subset(uri="s3://lora/one"), Subset(uri="s3://lora/two")

    first = scan(DatasetSources(subsets=(tmp_path / "one", tmp_path / "two")), Dataset(subsets=(one, two)))
    second = scan(DatasetSources(subsets=(tmp_path / "two", tmp_path / "one")), Dataset(subsets=(two, one)))

    changed = {name for name in first.digests if first.digests[name] != second.digests[name]}
    assert first.digests.keys() == second.digests.keys() == {"one/a.png", "two/a.png", *changed}
    assert changed == {"(order of spec.dataset.subsets)"}


def test_two_pictures_of_one_name_both_count(tmp_path: Path) -> None:
    write_metadata(
        tmp_path / "data",
        {"file": "a.png", "caption": "a"},
        {"file": "reg/1_woman/a.png", "caption": "b", "regularization": True},
    )
    for path in ("data/a.png", "data/reg/1_woman/a.png", "apart/1_woman/a.png"):
        write_picture(tmp_path / path)
    spec = Dataset(uri="s3://lora/x", workers=0, regularization=Regularization(uri="s3://lora/apart"))
    sources = DatasetSources(root=tmp_path / "data", regularization=tmp_path / "apart")
    keys = [example.key for example in scan(sources, spec).examples]
    before = scan(sources, spec).digest

    write_picture(tmp_path / "data" / "reg" / "1_woman" / "a.png", color=(1, 2, 4))

    assert keys.count("reg/1_woman/a.png") == 2
    assert scan(sources, spec).digest != before


def test_each_subset_may_have_its_own_caption_extension(tmp_path: Path) -> None:
    for name in ("one", "two"):
        path = write_picture(tmp_path / name / "a.png", caption="text")
        path.with_suffix(".caption").write_text("caption")
    spec = Dataset(
        subsets=(
            Subset(uri="s3://lora/one"),
            Subset(uri="s3://lora/two", captions=CaptionOverrides(extension=".caption")),
        )
    )

    examples = scan(DatasetSources(subsets=(tmp_path / "one", tmp_path / "two")), spec).examples

    assert [example.caption for example in examples] == ["text", "caption"]


def test_a_subset_without_class_tokens_needs_captions(tmp_path: Path) -> None:
    write_picture(tmp_path / "10_hina" / "a.png")
    spec = Dataset(subsets=(Subset(uri="s3://lora/10_hina"),))

    assert problems_of(DatasetSources(subsets=(tmp_path / "10_hina",)), spec) == [
        "10_hina/a.png has no caption file a.txt, and spec.dataset.subsets[0].classTokens is not set; "
        "write the file or set it"
    ]


def test_folders_inside_a_subset_are_a_problem(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", caption="x")
    write_picture(tmp_path / "in" / "b.png")

    assert problems_of(DatasetSources(subsets=(tmp_path,)), Dataset(subsets=(Subset(uri="s3://lora/x"),))) == [
        "x/in/ holds pictures, but nested folders are not read; move them up"
    ]


def test_pictures_of_subsets_with_one_name_keep_apart(tmp_path: Path) -> None:
    for place in ("one", "two"):
        write_picture(tmp_path / place / "hina" / "a.png", caption="x")
    spec = Dataset(subsets=(Subset(uri="s3://lora/one/hina"), Subset(uri="s3://lora/two/hina")))

    examples = scan(DatasetSources(subsets=(tmp_path / "one" / "hina", tmp_path / "two" / "hina")), spec).examples

    assert [(example.key, example.folder) for example in examples] == [
        ("hina/a.png", "hina"),
        ("hina (2)/a.png", "hina (2)"),
    ]


def test_regularization_may_lie_elsewhere_and_is_then_the_same_dataset(tmp_path: Path) -> None:
    for root in (tmp_path / "apart", tmp_path / "together"):
        write_picture(root / "3_hina" / "a.png", caption="hina")
    write_picture(tmp_path / "ordinary" / "2_woman" / "a.png")
    write_picture(tmp_path / "together" / "reg" / "2_woman" / "a.png")
    spec = Dataset(uri="s3://lora/x", regularization=Regularization(uri="s3://lora/ordinary"))

    apart = scan(DatasetSources(root=tmp_path / "apart", regularization=tmp_path / "ordinary"), spec)

    assert [example.key for example in apart.examples] == ["3_hina/a.png", "reg/2_woman/a.png"]
    assert apart.digest == scan_root(tmp_path / "together").digest


def test_metadata_at_the_root_is_the_dataset(tmp_path: Path) -> None:
    write_picture(tmp_path / "b.png", caption="from the file")
    for name in ("in/deep/a.png", "in/c.png"):
        write_picture(tmp_path / name)
    lines = [
        {"file": "in/deep/a.png", "caption": "hina", "repeats": 5},
        {"file": "b.png"},
        {"file": "in/c.png", "caption": "woman", "regularization": True},
    ]
    write_metadata(tmp_path, *lines)

    examples = scan_root(tmp_path).examples

    assert [(example.key, example.folder, example.repeats) for example in examples] == [
        ("b.png", "my-data", 1),
        ("in/c.png", "in", 1),
        ("in/deep/a.png", "deep", 5),
    ]
    assert [(example.caption, example.caption_source) for example in examples] == [
        ("from the file", "file"),
        ("woman", "metadata"),
        ("hina", "metadata"),
    ]
    assert [example.is_regularization for example in examples] == [False, True, False]


def test_pictures_that_the_metadata_of_the_root_leaves_out_are_a_warning(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "10_hina/c.png"):
        write_picture(tmp_path / name)
    write_metadata(tmp_path, {"file": "a.png", "caption": "x"})

    scanned = scan_root(tmp_path)

    assert [example.key for example in scanned.examples] == ["a.png"]
    assert scanned.warnings == ("2 pictures are not listed in metadata.jsonl and not used: 10_hina/c.png, b.png.",)


def test_a_picture_of_the_root_without_any_caption_is_a_problem(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    write_metadata(tmp_path, {"file": "a.png"})

    assert problems_of(DatasetSources(root=tmp_path)) == [
        "a.png has no caption file a.txt, and metadata.jsonl gives it no caption; write one"
    ]


def test_metadata_of_a_concept_folder_changes_only_what_it_lists(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / "3_hina" / name, caption="hina from the file")
    write_metadata(tmp_path / "3_hina", {"file": "a.png", "caption": "hina from metadata", "repeats": 7})

    first, second = scan_root(tmp_path).examples

    assert (first.caption, first.repeats, first.caption_source) == ("hina from metadata", 7, "metadata")
    assert (second.caption, second.repeats, second.caption_source) == ("hina from the file", 3, "file")


def test_problems_of_metadata_name_the_folder_and_the_line(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_hina" / "a.png", caption="hina")
    write_metadata(tmp_path / "3_hina", {"file": "b.png"})

    assert problems_of(DatasetSources(root=tmp_path)) == [
        '3_hina/metadata.jsonl line 1 has file "b.png", which does not exist; '
        "correct the path (it is relative to metadata.jsonl)"
    ]


def test_every_line_of_a_caption_is_kept_for_wildcards(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x one\n\nx two")
    write_picture(tmp_path / "1_x" / "b.png")
    write_metadata(tmp_path / "1_x", {"file": "b.png", "caption": "x three\nx four"})
    spec = Dataset(uri="s3://lora/x", captions=Captions(wildcards=True))

    first, second = scan_root(tmp_path, spec).examples

    assert (first.caption, first.caption_lines) == ("x one", ("x one", "x two"))
    assert second.caption_lines == ("x three", "x four")


def test_without_wildcards_the_caption_is_one_line(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x one\nx two")

    assert scan_root(tmp_path).examples[0].caption_lines == ("x one",)


@pytest.mark.parametrize("change", ["line", "repeats", "regularization"])
def test_what_metadata_says_is_part_of_the_digest(tmp_path: Path, change: str) -> None:
    write_picture(tmp_path / "a.png", caption="x")
    write_picture(tmp_path / "b.png", caption="x one\nx two")
    spec = Dataset(uri="s3://lora/x", captions=Captions(wildcards=True))
    write_metadata(tmp_path, {"file": "a.png"}, {"file": "b.png"})
    before = scan_root(tmp_path, spec).digest

    if change == "line":
        (tmp_path / "b.txt").write_text("x one\nx three")
    changed: dict[str, dict[str, object]] = {"line": {}, "repeats": {"repeats": 2}}
    write_metadata(tmp_path, {"file": "a.png"}, {"file": "b.png"} | changed.get(change, {"regularization": True}))

    assert scan_root(tmp_path, spec).digest != before


def test_a_face_box_may_be_left_out_of_the_captions_name(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a_10_20_30_40.png")
    (tmp_path / "1_x" / "a.txt").write_text("x smiling")

    assert scan_root(tmp_path).examples[0].caption == "x smiling"


def test_an_affix_may_hold_the_trigger_word(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_hina" / "a.png", caption="smiling")
    spec = Dataset(uri="s3://lora/x", captions=Captions(prefix="hina,"))

    assert len(scan_root(tmp_path).warnings) == 1
    assert scan_root(tmp_path, spec).warnings == ()


def test_regularization_without_folders_is_a_warning(tmp_path: Path) -> None:
    write_picture(tmp_path / "data" / "1_x" / "a.png", caption="x")
    (tmp_path / "ordinary").mkdir()
    spec = Dataset(uri="s3://lora/x", regularization=Regularization(uri="s3://lora/y"))

    scanned = scan(DatasetSources(root=tmp_path / "data", regularization=tmp_path / "ordinary"), spec)

    assert scanned.warnings == ("spec.dataset.regularization.uri holds no pictures.",)


def test_reg_without_folders_is_a_warning(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x")
    (tmp_path / "reg").mkdir()

    assert scan_root(tmp_path).warnings == ("reg/ holds no pictures.",)


def test_each_word_that_no_caption_of_a_concept_holds_is_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_zwx man" / "a.png", caption="a man, smiling")
    write_picture(tmp_path / "1_zwx man" / "b.png", caption="a man on a chair")

    assert scan_root(tmp_path).warnings == (
        "No caption of 1_zwx man holds 'zwx'; add the words that shall call it up.",
    )


def test_a_name_that_is_not_utf_8_is_a_problem(tmp_path: Path) -> None:
    write_picture(tmp_path / "1_x" / "a.png", caption="x")
    write_picture(tmp_path / "1_x" / os.fsdecode(b"\xfc.png"), caption="x")

    assert problems_of(DatasetSources(root=tmp_path)) == ["'1_x/\\udcfc.png' has a name that is not UTF-8; rename it"]
