"""Drawing with the live model leaves the training alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_api.model_spec import Network
from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.drawing import Painter, to_image
from lora_trainer.families import catalogue
from lora_trainer.lora.inject import Adapters, add_adapters
from lora_trainer.samples import Picture

SQUARE = Picture("a red cat", "", width_px=64, height_px=64, steps=2, guidance=3.0, seed=1)
WIDE = Picture("a red cat", "", width_px=128, height_px=64, steps=2, guidance=3.0, seed=2)


def make_painter(folder: Path) -> tuple[Painter, Adapters]:
    model = catalogue.load(folder, torch.device("cpu"), precision=torch.float32)
    adapters = add_adapters(model.parts, Network(rank=2), family=model.family, seed=0)
    return Painter(model, make_schedule(0.00085, 0.012), nullcontext, lambda: None), adapters


def test_pictures_come_in_the_order_that_was_asked_for(tiny_pipeline: Path) -> None:
    painter, _ = make_painter(tiny_pipeline)

    images = painter.draw([SQUARE, WIDE, SQUARE], None)

    assert [image.size for image in images] == [(64, 64), (128, 64), (64, 64)]
    assert images[0].tobytes() == images[2].tobytes()


def test_modes_weights_gradients_and_global_randomness_stay_as_they_were(tiny_pipeline: Path) -> None:
    painter, adapters = make_painter(tiny_pipeline)
    painter.model.parts["text_encoder"].train()
    before = {name: (p.dtype, p.detach().clone(), p.requires_grad) for name, p in adapters.named_parameters().items()}
    random = torch.get_rng_state()

    painter.draw([SQUARE], adapters)

    after = adapters.named_parameters()
    assert (painter.model.parts["text_encoder"].training, painter.model.parts["unet"].training) == (True, False)
    assert all(
        (after[name].dtype, after[name].requires_grad) == (dtype, trained) and after[name].equal(weight)
        for name, (dtype, weight, trained) in before.items()
    )
    assert torch.get_rng_state().equal(random)


def test_drawing_can_be_stopped_and_still_restores_the_mode(tiny_pipeline: Path) -> None:
    painter, _ = make_painter(tiny_pipeline)
    painter.model.parts["text_encoder"].train()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Painter(painter.model, painter.schedule, nullcontext, stop).draw([SQUARE], None)

    assert painter.model.parts["text_encoder"].training


def test_each_part_is_placed_while_it_is_used_and_only_then(tiny_sdxl: Path) -> None:
    painter, _ = make_painter(tiny_sdxl)
    placed: set[str] = set()
    used: list[tuple[str, set[str]]] = []

    @contextmanager
    def placing(*parts: str) -> Iterator[None]:
        placed.update(parts)
        yield
        placed.difference_update(parts)

    def note(name: str, *_: object) -> None:
        used.append((name, set(placed)))

    for name, module in {**painter.model.parts, "vae": painter.model.vae.decoder}.items():
        module.register_forward_pre_hook(partial(note, name))

    replace(painter, placing=placing).draw([SQUARE, WIDE], None)

    texts = {"text_encoder", "text_encoder_2"}
    needed: dict[str, set[str]] = {"unet": set(), "vae": {"vae"}, **dict.fromkeys(texts, texts)}
    assert {name for name, _ in used} == set(needed)
    assert all(parts == needed[name] for name, parts in used)
    assert not placed


def test_pixels_are_rounded_to_levels() -> None:
    pixels = torch.tensor([-1.0, 0.0, 1.0, 1.7]).view(1, 2, 2).expand(3, 2, 2)

    assert np.asarray(to_image(pixels))[:, :, 0].tolist() == [[0, 128], [255, 255]]
