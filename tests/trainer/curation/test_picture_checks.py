"""Findings about pictures that an audit of whole datasets does not show one by one."""

from pathlib import Path

from lora_api.dataset_spec import Dataset
from lora_trainer.curation.picture_checks import check_pictures
from lora_trainer.curation.pictures import read_material
from lora_trainer.data.listing import DatasetSources
from tests.support.curated import drawing


def messages(root: Path, resolution: int = 96) -> list[tuple[str, tuple[str, ...]]]:
    spec = Dataset(uri=f"file://{root}", resolution=resolution)
    material = read_material(DatasetSources(root=root), spec, on_picture=lambda: None)
    return [(finding.message, finding.files) for finding in check_pictures(material.pictures, spec)]


def test_all_copies_of_a_picture_are_one_finding(tmp_path: Path) -> None:
    folder = tmp_path / "10_a"
    folder.mkdir()
    picture = drawing(1, (400, 400))
    picture.save(folder / "1.png")
    (folder / "2.png").write_bytes((folder / "1.png").read_bytes())
    picture.resize((300, 300)).save(folder / "3.png")
    picture.resize((200, 200)).save(folder / "4.png")

    assert messages(tmp_path) == [
        ("2 files hold the same bytes", ("10_a/1.png", "10_a/2.png")),
        ("3 files hold one picture, at 400x400, 300x300, 200x200 px", ("10_a/1.png", "10_a/3.png", "10_a/4.png")),
    ]


def test_what_a_bucket_cannot_hold_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "10_a"
    folder.mkdir()
    drawing(1, (2000, 8)).save(folder / "1.png")

    ((message, files),) = messages(tmp_path)

    assert message.startswith("is 2000x8 px, so narrow that less than 2 % of it would be left")
    assert files == ("10_a/1.png",)


def test_a_picture_is_small_by_its_area(tmp_path: Path) -> None:
    folder = tmp_path / "10_a"
    folder.mkdir()
    # 1.49 and 1.51 times smaller at each side than what is trained.
    drawing(1, (344, 344)).save(folder / "1.png")
    drawing(2, (339, 339)).save(folder / "2.png")

    assert messages(tmp_path, resolution=512) == [
        ("is 339x339 px; training at 512x512 px enlarges it 1.5 times", ("10_a/2.png",))
    ]
