"""Measures the finished model: `python -m lora_tinybase.evaluate --model tinybase/model --grid tinybase/samples.png`.

Draws every held-out combination and as many trained ones, reads the pictures back with `score`, prints the model
card's figures and writes a grid of the held-out pictures (left half) beside the trained ones (right half).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline
from PIL import Image

from lora_tinybase import drawings, score
from lora_tinybase.drawings import Pixels
from lora_tinybase.text_training import states_of

BATCH = 8
STEPS = 20
GUIDANCE = 6.0
GRID_COLUMNS = 5


@dataclass(frozen=True)
class Tally:
    """How many of `pictures` show the right shape, colour, background, and all three; mean overlap of the shape."""

    pictures: int
    shape: int
    colour: int
    background: int
    all: int
    overlap: float


def load(folder: Path) -> StableDiffusionPipeline:
    """The pipeline in float32 with the Euler ancestral sampler."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def draw(pipe: StableDiffusionPipeline, prompts: list[str], *, clip_skip: int = 1, seed: int = 0) -> list[Pixels]:
    """One 128 px picture per prompt; picture i starts from noise of seed + i, whatever the batch."""
    drawn: list[Pixels] = []
    for start in range(0, len(prompts), BATCH):
        texts = prompts[start : start + BATCH]
        ids = pipe.tokenizer(texts + [""] * len(texts), padding="max_length", return_tensors="pt").input_ids
        states = states_of(pipe.text_encoder, ids)[clip_skip - 1]
        pictures = pipe(
            prompt_embeds=states[: len(texts)],
            negative_prompt_embeds=states[len(texts) :],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=drawings.SIDE,
            width=drawings.SIDE,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(texts))],
        ).images
        drawn += [np.asarray(picture, np.uint8) for picture in pictures]
    return drawn


def tally(pictures: list[Pixels], scenes: list[drawings.Scene]) -> Tally:
    """Reads each picture and compares it with the scene that was asked for."""
    pairs = [(score.read(picture), scene) for picture, scene in zip(pictures, scenes, strict=True)]
    return Tally(
        pictures=len(pairs),
        shape=sum(reading.shape == scene.shape for reading, scene in pairs),
        colour=sum(reading.colour == scene.colour for reading, scene in pairs),
        background=sum(reading.background == scene.background for reading, scene in pairs),
        all=sum(reading.fits(scene) for reading, scene in pairs),
        overlap=float(np.mean([reading.overlap for reading, _ in pairs])),
    )


def chosen_scenes(repeats: int, seed: int) -> dict[str, list[drawings.Scene]]:
    """`repeats` scenes of every held-out combination, and as many of evenly spread trained ones."""
    rng = np.random.default_rng(seed)
    trained = drawings.TRAINED[3 :: len(drawings.TRAINED) // len(drawings.HELD_OUT)][: len(drawings.HELD_OUT)]
    chosen = {"held out": drawings.HELD_OUT, "trained": trained}
    return {name: [drawings.place(c, rng) for c in some * repeats] for name, some in chosen.items()}


def grid(pictures: list[Pixels], columns: int) -> Pixels:
    """The pictures in rows of `columns`, as one picture; an incomplete last row is left out."""
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures) - columns + 1, columns)]
    return np.concatenate(rows, 0)


def main() -> None:
    """Prints one line per clip skip and kind of combination, and writes the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="diffusers folder")
    parser.add_argument("--grid", type=Path, required=True, help="PNG to write")
    parser.add_argument("--repeats", type=int, default=3, help="pictures per combination")
    options = parser.parse_args()
    pipe = load(options.model)
    shown: list[Pixels] = []
    for clip_skip in (1, 2):
        for name, scenes in chosen_scenes(options.repeats, seed=1).items():
            prompts = [drawings.describe(scene) for scene in scenes]
            pictures = draw(pipe, prompts, clip_skip=clip_skip, seed=1000)
            print(f"clip skip {clip_skip}, {name}: {tally(pictures, scenes)}", flush=True)
            if clip_skip == 1:
                shown.append(grid(pictures[: len(drawings.HELD_OUT)], GRID_COLUMNS))
    Image.fromarray(np.concatenate(shown, 1)).save(options.grid, optimize=True)


if __name__ == "__main__":
    main()
