"""`lora captions audit`, with the real tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from lora_trainer.commands.audit import audit
from lora_trainer.curation.findings import Kind
from tests.support.command import run_command
from tests.support.curated import CAPTIONS, FOLDER, plant_faults, write_clean_dataset
from tests.support.files import write_training
from tests.support.object_store import faulty_store
from tests.support.pictures import write_picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_clean_dataset(tmp_path / "data")
    return tmp_path / "data"


def run(root: Path | str, *options: object) -> Result:
    return run_command(audit, root, "--resolution", 96, "--trigger", "hina", *options)


def document(root: Path, *options: object) -> dict[str, Any]:
    return dict(json.loads(run(root, "--json", *options).stdout))


def test_nothing_is_found_where_nothing_is_wrong(root: Path) -> None:
    result = run(root, "--strict")

    assert result.exit_code == 0
    assert "24 pictures, 4 for regularisation; 24 have a caption of their own." in result.stdout
    assert result.stdout.endswith("Nothing is wrong.\n")
    assert document(root)["findings"] == []


def test_every_planted_fault_is_found_and_none_invented(root: Path) -> None:
    planted = plant_faults(root)

    found = document(root)["findings"]

    assert {(finding["kind"], tuple(finding["files"])) for finding in found} == planted
    assert len(found) == len(planted)
    assert {finding["kind"] for finding in found} == {kind.label for kind in Kind}


def test_problems_end_with_65_and_a_table_of_each_kind(root: Path) -> None:
    plant_faults(root)

    result = run(root)

    assert result.exit_code == 65
    for kind in Kind:
        assert kind.title in result.stdout


def test_hints_fail_only_when_asked(root: Path) -> None:
    (root / FOLDER / "gone.txt").write_text("hina")

    assert run(root).exit_code == 0
    assert run(root, "--strict").exit_code == 65
    assert "0 problems, 1 hint." in run(root).stdout


def test_a_tag_on_few_pictures_is_counted(root: Path) -> None:
    for number in range(3):
        path = root / FOLDER / f"{number:02}.txt"
        path.write_text(path.read_text().strip() + ", 1boy")

    found = document(root)

    assert found["tags"][-1] == {"tag": "1boy", "captions": 3}
    assert [finding["message"] for finding in found["findings"]] == [f"'1boy' is on 3 of {CAPTIONS}"]
    assert document(root, "--rare", 0.1)["findings"] == []


def test_a_folder_of_pictures_alone_is_one_concept(root: Path) -> None:
    found = document(root / FOLDER)

    assert (found["pictures"], found["regularizationPictures"], found["findings"]) == (24, 0, [])


def test_captions_that_are_the_folders_name_are_no_fault(tmp_path: Path, root: Path) -> None:
    for path in root.rglob("*.txt"):
        path.unlink()

    assert document(root)["findings"] == []
    assert document(root)["captions"] == 0


def test_what_a_reader_says_is_told_with_its_cure(root: Path) -> None:
    (root / FOLDER / "03.txt").write_text("")
    (root / FOLDER / "04.png").write_bytes(b"no picture")
    write_picture(root / "loose.png")

    found = {finding["message"]: finding["cure"] for finding in document(root)["findings"]}

    assert found == {
        "loose.png lies in no concept folder": "Move it into a folder such as `10_concept`",
        "is no picture that can be read": "Convert it to PNG or JPEG",
        "is empty": "Write a caption or remove the file",
    }


def test_a_caption_of_another_extension_is_named(root: Path) -> None:
    (root / FOLDER / "03.txt").rename(root / FOLDER / "03.caption")

    (finding,) = document(root)["findings"]

    assert (
        finding["message"] == "there is no 03.txt, but 03.caption; its folder's text would be its caption: hina woman"
    )
    assert finding["cure"] == "Rename it, or set captions.extension"


def test_a_training_file_says_how_its_dataset_is_trained(tmp_path: Path, root: Path) -> None:
    write_picture(root / FOLDER / "wide.png", (400, 60), caption="hina")
    changes = (("dataset.uri", f"file://{root}"), ("dataset.resolution", 96), ("dataset.captions.prefix", "hina,"))
    file = write_training(tmp_path, *changes)

    found = json.loads(run_command(audit, file, "--trigger", "hina", "--json").stdout)

    assert (found["pictures"], found["regularizationPictures"]) == (25, 4)
    # The prefix stands before regularisation captions as well.
    expected = {"BlurredPicture", "CroppedPicture", "TriggerInRegularization"}
    assert {finding["kind"] for finding in found["findings"]} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-tokens", 77), "--max-tokens cannot be 77 (Input should be 75, 150 or 225); use 75, 150 or 225"),
        (("--resolution", "many"), "--resolution cannot be many"),
        (("--extension", ".png"), "--extension cannot be .png (extension is that of pictures"),
    ],
)
def test_settings_that_cannot_be_are_refused(root: Path, options: tuple[object, ...], message: str) -> None:
    result = run_command(audit, root, *options)

    assert result.exit_code == 64
    assert message in result.stderr


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path)

    assert result.exit_code == 65
    assert f"{tmp_path.as_uri()}: there are no pictures" in result.stderr and "LoraTraining" not in result.stderr


def test_a_bucket_is_read_as_the_folder_in_it(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant_faults(root)
    monkeypatch.setenv("LORA_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    with faulty_store() as store:
        bucket = store.make_bucket()
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            key = f"data/{path.relative_to(root).as_posix()}"
            store.client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
        options = ("--endpoint", store.endpoint, "--json")

        found = json.loads(run(f"s3://{bucket}/data", *options).stdout)
        flat = json.loads(run(f"s3://{bucket}/data/{FOLDER}", *options).stdout)

    assert {(finding["kind"], tuple(finding["files"])) for finding in found["findings"]} == planted
    assert flat["pictures"] == CAPTIONS
    assert flat["findings"][0]["files"] == [f"{FOLDER}/15.png"]
