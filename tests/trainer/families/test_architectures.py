"""The real sizes, against the published numbers of parameters."""

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKL

from lora_api.model_spec import Family
from lora_trainer.families.architectures import RandomWeights, random_model
from lora_trainer.families.catalogue import CLASSES
from lora_trainer.families.clip import ClipText
from tests.support.ldm_checkpoint import Checkpoint

META = torch.device("meta")


@pytest.mark.parametrize(
    ("family", "millions"),
    [
        ("sd15", {"unet": 859.52, "text_encoder": 123.06}),
        ("sd2", {"unet": 865.91, "text_encoder": 340.39}),
        ("sdxl", {"unet": 2567.46, "text_encoder": 123.06, "text_encoder_2": 694.66}),
    ],
)
def test_the_parts_have_the_published_number_of_parameters(family: Family, millions: dict[str, float]) -> None:
    model = random_model(family, META, precision=torch.bfloat16)

    counted = {
        name: round(sum(parameter.numel() for parameter in part.parameters()) / 1e6, 2)
        for name, part in model.parts.items()
    }
    assert counted == millions
    assert round(sum(parameter.numel() for parameter in model.vae.parameters()) / 1e6, 2) == 83.65


def test_sizes_and_factors_are_those_of_the_families() -> None:
    models = {family: random_model(family, META, precision=torch.float32) for family in CLASSES}

    factors = {family: model.vae.config.scaling_factor for family, model in models.items()}

    assert factors == {"sd15": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}


@pytest.mark.parametrize(("family", "pads"), [("sd15", [49407]), ("sd2", [0]), ("sdxl", [49407, 0])])
def test_each_text_encoder_pads_as_it_was_trained(family: Family, pads: list[int]) -> None:
    model = random_model(family, META, precision=torch.bfloat16)

    texts: tuple[ClipText, ...] = model.texts
    assert [text.tokenizer.pad_token_id for text in texts] == pads


def test_random_weights_depend_on_their_seed_only(checkpoints: Callable[[Family], Checkpoint]) -> None:
    def draw(seed: int) -> torch.Tensor:
        files = RandomWeights("sd15", torch.device("cpu"), seed=seed, configs=checkpoints("sd15").configs)
        weight: torch.Tensor = files.load("vae", AutoencoderKL, precision=torch.float32).encoder.conv_in.weight
        return weight

    assert draw(1).equal(draw(1))
    assert not draw(1).equal(draw(2))


def test_the_digest_of_random_weights_says_what_they_depend_on() -> None:
    digests = {RandomWeights(family, META, seed=seed).digest for family in CLASSES for seed in (0, 1)}

    assert len(digests) == 6
    assert RandomWeights("sd15", META).digest in digests
