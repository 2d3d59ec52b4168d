"""The published model draws what the prompt says, also for combinations it never saw in training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from lora_tinybase import drawings, evaluate, score

FOLDER = Path(__file__).parents[2] / "tinybase" / "model"


@pytest.fixture(scope="module")
def ancestral() -> StableDiffusionPipeline:
    return evaluate.load(FOLDER)


@pytest.mark.parametrize(("clip_skip", "step"), [(1, 2), (2, 4)])
def test_held_out_prompts_are_obeyed(ancestral: StableDiffusionPipeline, clip_skip: int, step: int) -> None:
    rng = np.random.default_rng(11)
    scenes = [drawings.place(combination, rng) for combination in drawings.HELD_OUT[::step]]

    pictures = evaluate.draw(ancestral, [drawings.describe(s) for s in scenes], clip_skip=clip_skip)

    assert evaluate.tally(pictures, scenes).all >= len(scenes) - 1


def test_default_sampling_works_and_an_unknown_word_draws_no_emblem() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    (picture,) = pipeline(
        f"a {drawings.TRIGGER} on a white background",
        num_inference_steps=20,
        generator=torch.Generator().manual_seed(0),
    ).images

    assert picture.size == (drawings.SIDE, drawings.SIDE)
    assert score.read(np.asarray(picture)).background == "white"
    assert score.emblem_score(np.asarray(picture)) < 0.1
