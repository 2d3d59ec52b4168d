"""lora_trainer.caption_files: which pictures get a caption file, and that no file is lost by it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_trainer.caption_files import CaptionWriter, Task, caption_pictures, find_tasks
from lora_trainer.commands.caption import caption
from lora_trainer.storage import open_store
from lora_trainer.storage.directory_store import DirectoryStore
from tests.support.command import run_command
from tests.support.object_store import Fault, FaultyStore, faulty_store
from tests.support.pictures import write_picture
from tests.support.tiny_blip import write_tiny_blip


@pytest.fixture(scope="module")
def store() -> Iterator[FaultyStore]:
    with faulty_store() as server:
        yield server


def targets(*keys: str, overwrite: bool = False) -> list[str]:
    return [task.target for task in find_tasks(keys, extension=".txt", overwrite=overwrite).tasks]


def test_each_picture_without_caption_gets_a_file_beside_it() -> None:
    assert targets("b.png", "10_zwx/a.JPG", "10_zwx/c.png", "10_zwx/c.txt") == ["10_zwx/a.txt", "b.txt"]


@pytest.mark.parametrize("key", [".thumbs/a.png", "10_zwx/.a.png", "mask/10_zwx/a.png", "a.gif", "readme.md"])
def test_hidden_files_masks_and_others_are_no_pictures(key: str) -> None:
    assert targets(key) == []


def test_regularisation_pictures_are_left_out_and_counted() -> None:
    found = find_tasks(["reg/1_man/a.png", "1_zwx/reg.png"], extension=".txt", overwrite=False)

    assert ([task.picture for task in found.tasks], found.regularization) == (["1_zwx/reg.png"], 1)


def test_a_caption_in_capitals_is_a_caption() -> None:
    assert targets("a.png", "A.TXT") == []
    assert targets("a.png", "A.TXT", overwrite=True) == ["A.TXT"]


def test_a_caption_that_crops_share_is_never_replaced() -> None:
    keys = ("hina.txt", "hina_1_2_3_4.png", "hina_5_6_7_8.png")

    assert targets(*keys) == targets(*keys, overwrite=True) == []


def test_pictures_of_one_name_get_one_caption() -> None:
    found = find_tasks(["a.jpg", "a.png"], extension=".txt", overwrite=False)

    assert (found.tasks, found.captioned) == ((Task("a.jpg", "a.txt"),), 1)


def test_a_caption_that_comes_meanwhile_stays_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("by hand")
    store = DirectoryStore(tmp_path, tmp_path.as_uri(), on_bytes=lambda count: None)

    assert not CaptionWriter(store, overwrite=False, is_shared=False).write("a.txt", "by a model")
    assert (tmp_path / "a.txt").read_text() == "by hand"


def test_a_caption_that_comes_meanwhile_stays_in_a_bucket(store: FaultyStore, tmp_path: Path) -> None:
    bucket = store.make_bucket()
    place = open_store(f"s3://{bucket}/d", store.connection(tmp_path), field="x", on_bytes=lambda _: None)
    writer = CaptionWriter(place, overwrite=False, is_shared=True)

    store.client.put_object(Bucket=bucket, Key="d/a.txt", Body=b"by hand")

    assert (writer.write("a.txt", "by a model"), writer.write("b.txt", "by a model")) == (False, True)
    assert (place.get_bytes("a.txt"), place.get_bytes("b.txt")) == (b"by hand", b"by a model\n")


def test_a_picture_that_vanishes_fails_alone(tmp_path: Path) -> None:
    write_picture(tmp_path / "b.png")
    store = DirectoryStore(tmp_path, tmp_path.as_uri(), on_bytes=lambda count: None)
    writer = CaptionWriter(store, overwrite=False, is_shared=False)
    tasks = [Task("a.png", "a.txt"), Task("b.png", "b.txt"), Task("b.png", "c.txt")]
    words = iter(["red", ""])

    outcomes = list(caption_pictures(tasks, writer, lambda some: [next(words) for _ in some], str, batch=2))

    assert [outcome.state for outcome in outcomes] == ["failed", "written", "failed"]
    assert "removed meanwhile" in outcomes[0].problem
    assert "write its caption" in outcomes[2].problem


def test_pictures_of_a_bucket_get_captions_in_the_bucket(
    store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny_blip(tmp_path / "blip")
    bucket = store.make_bucket()
    for name in ("a", "b"):
        picture = write_picture(tmp_path / f"{name}.png")
        store.client.upload_file(str(picture), bucket, f"data/1_zwx/{name}.png")
    store.client.put_object(Bucket=bucket, Key="data/1_zwx/b.txt", Body=b"by hand")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("LORA_WORK_DIR", str(tmp_path / "work"))
    # The first answer is lost; the second try must not take its own file for another's.
    store.faults.append(Fault("PUT", "a.txt", lose_answer=True, times=1))
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    result = run_command(
        caption, f"s3://{bucket}/data", "--model", model, "--endpoint", store.endpoint, "--device", "cpu"
    )

    assert (result.exit_code, result.stdout) == (0, "1 captions written, 1 pictures had one\n")
    assert store.faults[0].times == 0
    read = {
        key: store.client.get_object(Bucket=bucket, Key=f"data/1_zwx/{key}")["Body"].read()
        for key in ("a.txt", "b.txt")
    }
    assert (len(read["a.txt"].split()) >= 5, read["b.txt"]) == (True, b"by hand")
