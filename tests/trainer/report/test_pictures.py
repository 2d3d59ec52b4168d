"""Pictures inside the page."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.report.pictures import affordable, embed


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """What can hardly be compressed, 400 x 200."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 400, 3), dtype=np.uint8)).save(path)
    return path


def test_a_picture_is_shrunk_to_its_budget_with_its_proportions(noise: Path) -> None:
    picture = embed(noise, size_bytes=20_000)

    assert picture is not None
    assert len(picture.uri) <= 20_000
    assert picture.width / picture.height == pytest.approx(2, rel=0.02)
    assert picture.width > 100


def test_a_picture_within_its_budget_keeps_its_size(noise: Path) -> None:
    picture = embed(noise, size_bytes=1_000_000)

    assert picture is not None
    with Image.open(BytesIO(base64.b64decode(picture.uri.partition(",")[2]))) as image:
        assert (image.size, image.format) == ((400, 200), "WEBP")


def test_what_is_no_picture_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("<svg onload=alert(1)>")

    assert embed(tmp_path / "x.png", size_bytes=1000) is None


def test_a_sheet_that_would_fill_the_memory_is_not_decoded(noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_trainer.report.pictures._MOST_DECODED", 79_999)

    assert embed(noise, size_bytes=1_000_000) is None


def test_the_first_the_last_and_the_wanted_are_always_kept() -> None:
    kept = affordable(range(100), wanted=[37, None], most=10)

    assert len(kept) == 10
    assert {0, 37, 99} <= set(kept)
    assert kept == sorted(kept)


def test_few_are_all_kept() -> None:
    assert affordable([0, 2, 4], wanted=[], most=3) == [0, 2, 4]
