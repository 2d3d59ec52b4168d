"""Loading, texts, latents and predictions of Stable Diffusion 1.x; what all families share is checked here."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_trainer.conditioning import TextStates, size_conditions
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.families import catalogue
from lora_trainer.families.stable_diffusion import StableDiffusion

CPU = torch.device("cpu")
SIZES = size_conditions((64, 64), (0, 0), (64, 64))[None]


def load(folder: Path, *, clip_skip: int = 1, max_tokens: int = 75, weighted: bool = False) -> StableDiffusion:
    return catalogue.load(
        folder, CPU, precision=torch.float32, clip_skip=clip_skip, max_tokens=max_tokens, weighted=weighted
    )


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path) -> StableDiffusion:
    """The model with one chunk and no clip skip; read only."""
    return load(tiny_pipeline)


def words(count: int) -> str:
    """A text of `count` words that are one token each."""
    return " ".join(["a"] * count)


def states_of(model: StableDiffusion, text: str) -> torch.Tensor:
    """States (1, L, D) of a text."""
    with torch.no_grad():
        return model.encode_texts(model.tokenize([text])).states


def test_the_parts_that_can_be_adapted_are_the_unet_and_the_text_encoder(model: StableDiffusion) -> None:
    assert model.family == "sd15"
    assert model.parts == {"unet": model.unet, "text_encoder": model.texts[0].encoder}


def test_a_longer_text_is_cut(model: StableDiffusion) -> None:
    assert model.tokenize([words(80)]).ids.equal(model.tokenize([words(75)]).ids)
    assert model.count_tokens([words(80), "red"]) == [80, 1]


def test_clip_skip_1_is_the_ordinary_output(model: StableDiffusion) -> None:
    with torch.no_grad():
        expected = model.texts[0].encoder(model.tokenize(["a red cat"]).ids[:, 0, 0]).last_hidden_state

    assert states_of(model, "a red cat").equal(expected)
    assert model.unused_text_layers == ()


def test_clip_skip_2_is_the_layer_before_with_the_final_norm(tiny_pipeline: Path) -> None:
    model = load(tiny_pipeline, clip_skip=2)
    encoder = model.texts[0].encoder
    seen = {}
    hook = encoder.encoder.layers[0].register_forward_hook(lambda *call: seen.update(out=call[2]))

    states = states_of(model, "a red cat")
    hook.remove()

    output = seen["out"][0] if isinstance(seen["out"], tuple) else seen["out"]
    norm = encoder.final_layer_norm
    expected = torch.nn.functional.layer_norm(output, output.shape[-1:], norm.weight, norm.bias, eps=1e-5)
    torch.testing.assert_close(states, expected.reshape(states.shape))
    assert model.unused_text_layers == ("text_encoder.encoder.layers.1.",)


def test_clip_skip_beyond_the_layers_is_refused(tiny_pipeline: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"clipSkip is 3, but the text encoder has only 2 layers"):
        load(tiny_pipeline, clip_skip=3)


def test_each_chunk_of_a_long_text_is_encoded_by_itself(tiny_pipeline: Path) -> None:
    model = load(tiny_pipeline, max_tokens=150)

    states = states_of(model, words(100))

    with torch.no_grad():
        first, second = model.texts[0].encoder(model.tokenize([words(100)]).ids[0, 0]).last_hidden_state
    torch.testing.assert_close(states[0], torch.cat([first[:1], first[1:-1], second[1:-1], second[-1:]]))


def test_emphasis_changes_the_states_of_its_words_only(tiny_pipeline: Path, model: StableDiffusion) -> None:
    plain, weighted = states_of(model, "a red cat"), states_of(load(tiny_pipeline, weighted=True), "a (red:1.5) cat")

    torch.testing.assert_close(weighted[0, 2], plain[0, 2] * 1.5)
    torch.testing.assert_close(weighted[0, [0, 1, 3]], plain[0, [0, 1, 3]])


def test_a_latent_does_not_depend_on_the_batch(model: StableDiffusion) -> None:
    pixels = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1

    together, alone = model.encode_images(pixels), model.encode_images(pixels[1:])

    torch.testing.assert_close(together[1:], alone)
    assert together.shape == (2, model.latent_channels, 64 // model.pixels_per_latent, 8)


def test_pictures_that_lie_on_the_cpu_are_encoded_in_fp32_on_a_gpu_as_well(model: StableDiffusion) -> None:
    class Vae:
        device = torch.device("cuda")
        config = model.vae.config

        def encode(self, pixels: Any) -> Any:
            self.was_cast = torch.is_autocast_enabled("cuda")
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=torch.zeros(1, 4, 8, 8)))

    pixels, vae = SimpleNamespace(device=CPU, to=lambda device, dtype: pixels), Vae()
    torch.set_autocast_enabled("cuda", True)
    try:
        replace(model, vae=vae).encode_images(pixels)  # type: ignore[arg-type]
    finally:
        torch.set_autocast_enabled("cuda", False)

    assert not vae.was_cast


def test_latents_are_scaled_means_of_the_posterior(model: StableDiffusion) -> None:
    pixels = torch.zeros(1, 3, 64, 64)

    with torch.no_grad():
        mean = model.vae.encode(pixels).latent_dist.mean

    torch.testing.assert_close(model.encode_images(pixels), mean * 0.18215)


def test_decoded_pixels_are_those_of_the_unscaled_latent(model: StableDiffusion) -> None:
    latents = torch.full((1, 4, 8, 8), 0.18215)

    with torch.no_grad():
        pixels = model.vae.decode(torch.ones(1, 4, 8, 8)).sample

    torch.testing.assert_close(model.decode_latents(latents), pixels.clamp(-1, 1))


def test_the_unet_is_asked_with_states_and_timesteps(model: StableDiffusion) -> None:
    latents, timesteps = torch.ones(1, 4, 8, 8), torch.tensor([500])
    states = states_of(model, "a red cat")

    with torch.no_grad():
        predicted = model.predict(latents, timesteps, TextStates(states), SIZES)
        expected = model.unet(latents, timesteps, states).sample

    assert predicted.equal(expected)


def test_the_vae_stays_in_fp32_when_the_rest_does_not(tiny_pipeline: Path) -> None:
    model = catalogue.load(tiny_pipeline, CPU, precision=torch.bfloat16)

    assert {next(part.parameters()).dtype for part in model.parts.values()} == {torch.bfloat16}
    assert next(model.vae.parameters()).dtype == torch.float32


def test_nothing_of_the_base_is_trained(model: StableDiffusion) -> None:
    parts = (*model.parts.values(), model.vae)

    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())


def test_checkpointing_changes_no_gradient(tiny_pipeline: Path) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = load(tiny_pipeline)
        if checkpointed:
            model.checkpoint_gradients()
        watched = model.texts[0].encoder.final_layer_norm.weight.requires_grad_()
        text = model.encode_texts(model.tokenize(["a red cat"]))
        model.predict(torch.ones(1, 4, 8, 8), torch.tensor([500]), text, SIZES).sum().backward()
        gradients.append(watched.grad)

    torch.testing.assert_close(gradients[0], gradients[1])


def test_parts_move_where_they_are_placed(tiny_pipeline: Path) -> None:
    model = load(tiny_pipeline)

    model.place("vae", "text_encoder", device=torch.device("meta"))

    devices = {name: next(part.parameters()).device.type for name, part in {**model.parts, "vae": model.vae}.items()}
    assert devices == {"unet": "cpu", "text_encoder": "meta", "vae": "meta"}


def test_xformers_says_why_it_cannot_run(model: StableDiffusion) -> None:
    with pytest.raises(RuntimeError, match="xformers needs an NVIDIA GPU"):
        model.use_xformers()
