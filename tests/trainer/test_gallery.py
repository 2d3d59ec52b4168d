"""Which pictures of a run are drawn when, and that drawing them changes nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from PIL import Image
from safetensors.torch import load_file

from lora_api.evaluation_spec import Sampler
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.gallery import Exhibits, Gallery
from lora_trainer.output import OutputSettings, RunOutput
from lora_trainer.run import run_training
from lora_trainer.samples import Picture, write_picture
from lora_trainer.storage.directory_store import DirectoryStore
from tests.support.tiny_run import FEW_BLOCKS, make_session, make_training

PICTURES = tuple(Picture(text, "", width_px=64, height_px=64, steps=1, guidance=1.0, seed=0) for text in ("a", "b"))


class Adapters:
    """Knows whether it takes part."""

    def __init__(self) -> None:
        self.is_on = True

    @contextmanager
    def disabled(self) -> Iterator[None]:
        self.is_on = False
        yield
        self.is_on = True


class Painter:
    """Draws red where adapters take part, else white; notes how often it draws."""

    def __init__(self, live: Adapters) -> None:
        self.drawn, self._live = 0, live

    def check(self, pictures: Sequence[Picture], *, field: str) -> None:
        pass

    def draw(self, pictures: Sequence[Picture], adapters: Adapters | None) -> list[Image.Image]:
        self.drawn += 1
        return [Image.new("RGB", (64, 64), "red" if self._live.is_on else "white") for _ in pictures]


class Case:
    """A gallery of a run of 2 epochs of 5 steps, drawn after every second step as well."""

    def __init__(self, folder: Path) -> None:
        adapters = Adapters()
        self.painter = Painter(adapters)
        exhibits: Any = Exhibits("hina", "base", PICTURES, adapters, self.painter, nullcontext)  # type: ignore[arg-type]
        plan: Any = SimpleNamespace(
            sample_epochs=(0, 1, 2),
            sample_steps={2, 4, 6, 8},
            steps_until=lambda epoch: 5 * epoch,
            epoch_of=lambda step: -(-step // 5),
        )
        run: Any = SimpleNamespace(start=1, attempt=1)
        store = DirectoryStore(folder / "store", "file:///store", on_bytes=lambda _: None)
        self.output = RunOutput(store, run, OutputSettings(folder / "work"))
        self.gallery = Gallery(exhibits, plan, self.output, make_session(folder).session.audience)

    def names(self) -> list[str]:
        """Files handed over, without their folder and the name of the output."""
        return [file.path.removeprefix("samples/hina-") for file in self.output.files]

    def colours(self, name: str) -> set[Any]:
        """Colours of a picture."""
        with Image.open(self.output.local(f"samples/hina-{name}")) as image:
            return {colour for _, colour in image.getcolors() or ()}


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path)
    yield made
    made.output.close()


def test_before_the_first_step_the_base_model_is_drawn(case: Case) -> None:
    case.gallery.begin(0)

    assert case.names() == ["e000000-00.png", "e000000-01.png"]
    assert case.colours("e000000-00.png") == {(255, 255, 255)}


def test_after_steps_and_epochs_the_adapters_take_part(case: Case) -> None:
    for step in range(1, 6):
        case.gallery.after_step(step)
    case.gallery.after_epoch(5, 1)

    pictures = [name for name in case.names() if name.endswith("-00.png")]
    assert pictures == ["e000001-00.png", "s000002-00.png", "s000004-00.png"]
    assert case.colours("s000002-01.png") == case.colours("e000001-00.png") == {(255, 0, 0)}


def test_files_are_noted_with_the_epoch_and_step_they_were_drawn_in(case: Case) -> None:
    for step in (4, 6):
        case.gallery.after_step(step)
    case.gallery.after_epoch(10, 2)

    noted = {(file.step, file.epoch) for file in case.output.files}
    assert noted == {(4, 1), (6, 2), (10, 2)}


@pytest.mark.parametrize(("step", "draws"), [(0, 1), (3, 0), (4, 1)])
def test_who_goes_on_draws_what_is_due_and_missing(step: int, draws: int, case: Case) -> None:
    if step > 0:
        case.gallery.begin(0)
    before = case.painter.drawn

    case.gallery.begin(step)
    case.gallery.begin(step)

    assert case.painter.drawn - before == draws


def test_pictures_of_which_one_is_missing_are_drawn_again(case: Case) -> None:
    path = "samples/hina-s000002-00.png"
    case.output.write(path, lambda local: write_picture(Image.new("RGB", (64, 64)), local, "x"))
    case.output.publish(path, "sample", epoch=1, step=2)
    case.output.wait()

    case.gallery.after_step(2)

    assert case.painter.drawn == 1


def test_the_sheet_grows_by_every_column_drawn_so_far(case: Case) -> None:
    case.gallery.begin(0)
    for step in range(1, 6):
        case.gallery.after_step(step)
    case.gallery.after_epoch(5, 1)
    case.gallery.after_step(6)
    case.gallery.finish(7, 2)

    with Image.open(case.output.local("samples/hina-sheet-000001.png")) as first:
        assert first.width == 208 + 4 * 136
    with Image.open(case.output.local("samples/hina-sheet.png")) as last:
        assert last.width == 208 + 5 * 136


def test_without_pictures_there_is_no_sheet(case: Case) -> None:
    case.gallery.finish(10, 2)

    assert case.names() == []


def test_the_tag_in_a_picture_names_the_adapters_file(case: Case) -> None:
    case.gallery.begin(0)
    case.gallery.after_epoch(5, 1)

    texts = []
    for name in ("e000000-00.png", "e000001-00.png"):
        with Image.open(case.output.local(f"samples/hina-{name}")) as image:
            texts.append(image.info["parameters"].splitlines()[0])
    assert texts == ["a", "a <lora:hina-000001:1>"]


def trained(folder: Path, base: Path, data: Path, **samples: Any) -> dict[str, Any]:
    """Tensors of every adapter of a short training with dropout and an average."""
    changes: dict[str, Any] = {
        "network": {"dropout": 0.2, "blocks": FEW_BLOCKS},
        "training": {"epochs": 1, "ema": {"decay": 0.9}},
        "samples": samples,
    }
    run_training(make_training(base, data, folder / "out", **changes), make_session(folder / "work").session)
    files = sorted((folder / "out/adapters").iterdir())
    return {f"{file.name} {key}": tensor for file in files for key, tensor in load_file(file).items()}


def test_drawing_changes_no_byte_of_the_training(tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> None:
    drawn = [
        {"prompt": "a (red:1.2) shape", "steps": 2, "sampler": sampler, "weight": place / 4, "clipSkip": 1 + place % 2}
        for place, sampler in enumerate(get_args(Sampler))
    ]

    without = trained(tmp_path / "off", tiny_pipeline, tiny_pictures, prompts=[])
    with_pictures = trained(tmp_path / "on", tiny_pipeline, tiny_pictures, prompts=drawn, everySteps=4)

    assert (tmp_path / "on/out/samples/tiny-s000004-05.png").is_file()
    assert without.keys() == with_pictures.keys()
    assert all(tensor.equal(with_pictures[name]) for name, tensor in without.items())


def test_a_clip_skip_that_the_model_lacks_ends_the_run_before_its_first_step(
    tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path
) -> None:
    prompts = [{"prompt": "a", "clipSkip": 12}]
    training = make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", samples={"prompts": prompts})

    with pytest.raises(InvalidConfiguration, match=r"spec\.samples\.prompts\[0\]\.clipSkip is 12, but"):
        run_training(training, make_session(tmp_path / "work").session)
