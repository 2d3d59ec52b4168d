"""What is different in Stable Diffusion XL: two encoders, a pooled state, sizes."""

import math
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from lora_trainer.conditioning import TextStates, size_conditions
from lora_trainer.families import catalogue
from lora_trainer.families.stable_diffusion import StableDiffusion
from tests.support.tiny_pipeline import POOLED_WIDTH, SIZE_WIDTH

CPU = torch.device("cpu")
SIZES = size_conditions((96, 64), (8, 4), (64, 48))[None]
LATENTS = torch.linspace(-1, 1, 4 * 64).reshape(1, 4, 8, 8)


@pytest.fixture(scope="module")
def model(tiny_sdxl: Path) -> StableDiffusion:
    """The model; read only."""
    return catalogue.load(tiny_sdxl, CPU, precision=torch.float32)


def encode(model: StableDiffusion, text: str) -> TextStates:
    with torch.no_grad():
        return model.encode_texts(model.tokenize([text]))


def test_both_text_encoders_can_be_adapted(model: StableDiffusion) -> None:
    assert list(model.parts) == ["unet", "text_encoder", "text_encoder_2"]


def test_texts_are_encoded_as_diffusers_does(model: StableDiffusion, tiny_sdxl: Path) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, local_files_only=True)
    with torch.no_grad():
        states, _, pooled, _ = pipeline.encode_prompt("a red cat", device=CPU, do_classifier_free_guidance=False)

    text = encode(model, "a red cat")

    assert text.pooled is not None
    torch.testing.assert_close(text.states, states)
    torch.testing.assert_close(text.pooled, pooled)


def test_the_second_encoder_gets_its_own_padding(model: StableDiffusion) -> None:
    first, second = model.tokenize(["red"]).ids[0, :, 0]

    assert first[:3].equal(second[:3])
    assert first[3:].unique().tolist() == [model.texts[0].tokenizer.eos_token_id]
    assert second[3:].unique().tolist() == [0]


def test_the_pooled_state_reads_the_first_chunk_only(tiny_sdxl: Path, model: StableDiffusion) -> None:
    longer = catalogue.load(tiny_sdxl, CPU, precision=torch.float32, max_tokens=150)
    text = " ".join(["a"] * 75)

    one, two = encode(model, text), encode(longer, f"{text} red cat")

    assert one.pooled is not None and two.pooled is not None
    torch.testing.assert_close(two.pooled, one.pooled)
    assert two.states.shape == (1, 152, 32)


def test_emphasis_leaves_the_pooled_state_alone(tiny_sdxl: Path, model: StableDiffusion) -> None:
    weighted = catalogue.load(tiny_sdxl, CPU, precision=torch.float32, weighted=True)

    plain, emphasised = encode(model, "a red cat"), encode(weighted, "a (red:1.5) cat")

    torch.testing.assert_close(emphasised.states[0, 2], plain.states[0, 2] * 1.5)
    assert plain.pooled is not None and emphasised.pooled is not None
    torch.testing.assert_close(emphasised.pooled, plain.pooled)


def test_the_last_layer_of_the_first_encoder_has_no_effect(tiny_sdxl: Path) -> None:
    model = catalogue.load(tiny_sdxl, CPU, precision=torch.float32)
    before = encode(model, "a red cat")

    with torch.no_grad():
        for name, parameter in model.parts["text_encoder"].named_parameters():
            if f"text_encoder.{name}".startswith(model.unused_text_layers):
                parameter.add_(1.0)

    assert model.unused_text_layers == ("text_encoder.encoder.layers.1.",)
    assert encode(model, "a red cat").states.equal(before.states)


def sinusoids(number: float) -> Tensor:
    """Cosines, then sines, of a number at falling frequencies (Vaswani et al. 2017, as LDM orders them)."""
    half = SIZE_WIDTH // 2
    angles = [number * math.exp(-math.log(10_000) * index / half) for index in range(half)]
    return torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])


def test_the_unet_sees_pooled_state_and_six_sizes(model: StableDiffusion) -> None:
    text = encode(model, "a red cat")
    seen = {}
    hook = model.unet.add_embedding.register_forward_pre_hook(lambda _, inputs: seen.update(given=inputs[0]))

    with torch.no_grad():
        model.predict(LATENTS, torch.tensor([500]), text, SIZES)
    hook.remove()

    assert text.pooled is not None
    torch.testing.assert_close(seen["given"][:, :POOLED_WIDTH], text.pooled)
    expected = torch.cat([sinusoids(number) for number in (64, 96, 4, 8, 48, 64)])
    torch.testing.assert_close(seen["given"][0, POOLED_WIDTH:], expected, atol=1e-4, rtol=0)


def test_the_vae_is_scaled_by_its_own_factor_in_fp32(tiny_sdxl: Path) -> None:
    model = catalogue.load(tiny_sdxl, CPU, precision=torch.bfloat16)
    pixels = torch.zeros(1, 3, 64, 64)

    with torch.no_grad():
        mean = model.vae.encode(pixels).latent_dist.mean

    assert mean.dtype == torch.float32
    torch.testing.assert_close(model.encode_images(pixels), mean * 0.13025)
