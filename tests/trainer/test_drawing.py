"""Drawing with the live model leaves the training alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)

from lora_api.evaluation_spec import Sampler
from lora_api.model_spec import Network
from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.drawing import Painter, to_image
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.families import catalogue
from lora_trainer.lora.inject import Adapters, add_adapters
from lora_trainer.samples import Picture

SQUARE = Picture("a red cat", "", width_px=64, height_px=64, steps=2, guidance=3.0, seed=1)
WIDE = Picture("a red cat", "", width_px=128, height_px=64, steps=2, guidance=3.0, seed=2)


def make_painter(folder: Path) -> tuple[Painter, Adapters]:
    model = catalogue.load(folder, torch.device("cpu"), precision=torch.float32)
    adapters = add_adapters(model.parts, Network(rank=2), family=model.family, seed=0)
    return Painter(model, make_schedule(0.00085, 0.012), nullcontext, lambda: None), adapters


@pytest.fixture(scope="module")
def painter(tiny_pipeline: Path) -> Painter:
    """One whose adapters do nothing; not to be changed."""
    return make_painter(tiny_pipeline)[0]


def test_pictures_come_in_the_order_that_was_asked_for(painter: Painter) -> None:
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

    decoder: Any = painter.model.vae.decoder
    for name, module in [*painter.model.parts.items(), ("vae", decoder)]:
        module.register_forward_pre_hook(partial(note, name))

    replace(painter, placing=placing).draw([SQUARE, WIDE], None)

    texts = {"text_encoder", "text_encoder_2"}
    needed: dict[str, set[str]] = {"unet": set(), "vae": {"vae"}, **dict.fromkeys(texts, texts)}
    assert {name for name, _ in used} == set(needed)
    assert all(parts == needed[name] for name, parts in used)
    assert not placed


def worked(adapters: Adapters) -> Adapters:
    """Adapters that change something, which fresh ones do not."""
    with torch.no_grad():
        for parameter in adapters.named_parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)) * 0.3)
    return adapters


def difference(first: Any, second: Any) -> float:
    """Mean difference of two pictures in levels."""
    return float(np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).mean())


def test_any_mix_of_pictures_is_drawn_as_each_of_them_alone(tiny_pipeline: Path) -> None:
    painter, adapters = make_painter(tiny_pipeline)
    worked(adapters)
    samplers = [replace(SQUARE, sampler=sampler, seed=seed) for seed, sampler in enumerate(get_args(Sampler))]
    others: list[dict[str, Any]] = [{"clip_skip": 2}, {"weight": 0.5}, {"prompt": "red " * 90}, {"guidance": 5.0}]
    mixed = [*samplers, SQUARE, *(replace(SQUARE, **other) for other in others)]

    together = painter.draw(mixed, adapters)

    alone = [painter.draw([picture], adapters)[0] for picture in mixed]
    # Batches of another size round otherwise, by a level at most.
    assert max(difference(one, other) for one, other in zip(together, alone, strict=True)) < 0.1
    distinct = {image.tobytes() for image in alone}
    assert len(distinct) == len(mixed)


def test_a_weight_of_0_draws_the_base_model(tiny_pipeline: Path) -> None:
    painter, adapters = make_painter(tiny_pipeline)
    worked(adapters)

    (weightless,) = painter.draw([replace(SQUARE, weight=0.0)], adapters)

    with adapters.disabled():
        assert weightless.tobytes() == painter.draw([SQUARE], None)[0].tobytes()


def test_the_weight_scales_what_both_unet_and_text_encoder_learned(tiny_pipeline: Path) -> None:
    painter, adapters = make_painter(tiny_pipeline)
    worked(adapters)

    (half,) = painter.draw([replace(SQUARE, weight=0.5)], adapters)

    with torch.no_grad():
        for layer in adapters.layers:
            for name, tensor in layer.tensors().items():
                tensor.mul_(0.5 if name in layer.ups() else 1.0)
    assert difference(half, painter.draw([SQUARE], None)[0]) < 0.1


def test_without_adapters_the_model_draws_as_it_is(tiny_pipeline: Path) -> None:
    painter, adapters = make_painter(tiny_pipeline)
    worked(adapters)

    assert (
        painter.draw([replace(SQUARE, weight=0.5)], None)[0].tobytes() == painter.draw([SQUARE], adapters)[0].tobytes()
    )


def test_emphasis_changes_a_picture_and_is_not_drawn_as_words(painter: Painter) -> None:
    prompts = ["a red cat", "a (red:1.5) cat", "a [red] cat", r"a \(red:1.5\) cat", r"a \[red\] cat"]

    drawn = painter.draw([replace(SQUARE, prompt=prompt) for prompt in prompts], None)

    assert len({image.tobytes() for image in drawn}) == len(prompts)


def test_words_after_the_75th_token_count(painter: Painter) -> None:
    first, second = painter.draw([replace(SQUARE, prompt="red " * 80 + word) for word in ("a", "b")], None)

    assert difference(first, second) > 0


def test_an_empty_negative_prompt_of_sdxl_is_zeros(tiny_sdxl: Path) -> None:
    model = make_painter(tiny_sdxl)[0].model

    with torch.no_grad():
        empty, wordy = (
            model.encode_prompts(model.tokenize_prompt(text), clip_skip=1, negative=True) for text in ("", "blurry")
        )
        prompt = model.encode_prompts(model.tokenize_prompt(""), clip_skip=1)

    for text, is_zero in ((empty, True), (wordy, False), (prompt, False)):
        assert text.pooled is not None
        assert (float(text.states.abs().sum()) == 0, float(text.pooled.abs().sum()) == 0) == (is_zero, is_zero)


def test_a_clip_skip_that_the_text_encoder_lacks_is_refused(painter: Painter) -> None:
    with pytest.raises(
        InvalidConfiguration, match=r"prompts\[1\]\.clipSkip is 3, but the text encoder has only 2 layers"
    ):
        painter.check([SQUARE, replace(SQUARE, clip_skip=3)], field="spec.samples.prompts")


def test_a_clip_skip_of_sdxl_is_refused(tiny_sdxl: Path) -> None:
    painter, _ = make_painter(tiny_sdxl)

    with pytest.raises(InvalidConfiguration, match=r"prompts\[0\]\.clipSkip is 2, but sdxl always reads"):
        painter.check([replace(SQUARE, clip_skip=2)], field="spec.samples.prompts")


@pytest.mark.parametrize(
    ("sampler", "scheduler", "options"),
    [
        ("euler", EulerDiscreteScheduler, {}),
        ("euler_a", EulerAncestralDiscreteScheduler, {}),
        ("dpmpp_2m_karras", DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    ],
)
def test_a_picture_equals_that_of_diffusers_pipeline(
    sampler: Sampler, scheduler: Any, options: dict[str, Any], painter: Painter, tiny_pipeline: Path
) -> None:
    picture = replace(SQUARE, sampler=sampler, steps=8, negative_prompt="blurry", width_px=128)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace", **options)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        picture.prompt,
        negative_prompt=picture.negative_prompt,
        width=picture.width_px,
        height=picture.height_px,
        num_inference_steps=picture.steps,
        guidance_scale=picture.guidance,
        generator=torch.Generator().manual_seed(picture.seed),
    )

    (image,) = painter.draw([picture], None)

    # DPM++ of diffusers begins with the data's share of noise, and asks at whole timesteps.
    assert difference(image, made.images[0]) < (0.5 if options else 0.1)


def test_pixels_are_rounded_to_levels() -> None:
    pixels = torch.tensor([-1.0, 0.0, 1.0, 1.7]).view(1, 2, 2).expand(3, 2, 2)

    assert np.asarray(to_image(pixels))[:, :, 0].tolist() == [[0, 128], [255, 255]]
