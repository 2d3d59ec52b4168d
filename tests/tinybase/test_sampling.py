"""The published model draws what the prompt says, also for combinations it never saw in training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline

from lora_tinybase import drawings, score
from lora_tinybase.text_training import states_of

FOLDER = Path(__file__).parents[2] / "tinybase" / "model"


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def ancestral(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    euler_a = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    return StableDiffusionPipeline(**(pipeline.components | {"scheduler": euler_a}), requires_safety_checker=False)


def held_out_scenes() -> list[drawings.Scene]:
    rng = np.random.default_rng(11)
    return [drawings.place(combination, rng) for combination in drawings.HELD_OUT[::2]]


def count_obeyed(pictures: list[object], scenes: list[drawings.Scene]) -> int:
    readings = [score.read(np.asarray(picture)) for picture in pictures]
    return sum(reading.fits(scene) for reading, scene in zip(readings, scenes, strict=True))


def test_held_out_prompts_are_obeyed(ancestral: StableDiffusionPipeline) -> None:
    scenes = held_out_scenes()

    pictures = ancestral(
        [drawings.describe(scene) for scene in scenes],
        num_inference_steps=20,
        guidance_scale=6.0,
        height=drawings.SIDE,
        width=drawings.SIDE,
        generator=torch.Generator().manual_seed(0),
    ).images

    assert count_obeyed(pictures, scenes) >= len(scenes) - 1


def test_clip_skip_2_is_obeyed_too(ancestral: StableDiffusionPipeline) -> None:
    scenes = held_out_scenes()[:4]
    prompts = [drawings.describe(scene) for scene in scenes] + [""] * len(scenes)
    ids = ancestral.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        _, skipped = states_of(ancestral.text_encoder, ids)

    pictures = ancestral(
        prompt_embeds=skipped[: len(scenes)],
        negative_prompt_embeds=skipped[len(scenes) :],
        num_inference_steps=20,
        guidance_scale=6.0,
        height=drawings.SIDE,
        width=drawings.SIDE,
        generator=torch.Generator().manual_seed(0),
    ).images

    assert count_obeyed(pictures, scenes) >= len(scenes) - 1


def test_default_sampling_works_and_an_unknown_word_draws_no_emblem(pipeline: StableDiffusionPipeline) -> None:
    (picture,) = pipeline(
        f"a {drawings.TRIGGER} on a white background",
        num_inference_steps=20,
        generator=torch.Generator().manual_seed(0),
    ).images

    assert picture.size == (drawings.SIDE, drawings.SIDE)
    assert score.read(np.asarray(picture)).background == "white"
    assert score.emblem_score(np.asarray(picture)) < 0.1
