"""Which modules get an adapter, and how it starts."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from lora_api.model_spec import Network
from lora_trainer.families import sd15
from lora_trainer.families.sd15 import StableDiffusion15
from lora_trainer.lora.inject import Adapters, add_adapters, text_encoder_targets, unet_targets

NETWORK = Network(rank=4, alpha=2.0)


def load(folder: Path, precision: torch.dtype = torch.float32) -> StableDiffusion15:
    return sd15.load(folder, torch.device("cpu"), precision=precision)


def adapted(folder: Path, *, seed: int = 1, network: Network = NETWORK) -> tuple[StableDiffusion15, Adapters]:
    model = load(folder)
    return model, add_adapters(model.unet, model.text_encoder, network, seed=seed)


def test_the_real_sizes_have_192_and_72_modules() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        text_encoder = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12))

    assert len(unet_targets(unet)) == 192
    assert len(text_encoder_targets(text_encoder)) == 72


def test_adapters_are_fp32_on_a_base_in_half_precision(tiny_pipeline: Path) -> None:
    model = load(tiny_pipeline, torch.bfloat16)

    adapters = add_adapters(model.unet, model.text_encoder, NETWORK, seed=1)

    assert {parameter.dtype for parameter in adapters.named_parameters().values()} == {torch.float32}
    assert model.unet.conv_in.weight.dtype == torch.bfloat16


def test_only_adapters_are_trainable(tiny_pipeline: Path) -> None:
    model, adapters = adapted(tiny_pipeline)

    trainable = [p for part in (model.unet, model.text_encoder) for p in part.parameters() if p.requires_grad]

    assert len(trainable) == 2 * len(adapters.layers) == 2 * (192 + 12)


def test_a_new_adapter_changes_nothing(tiny_pipeline: Path) -> None:
    plain = load(tiny_pipeline)
    model, _ = adapted(tiny_pipeline)
    latents, timesteps, states = torch.ones(1, 4, 8, 8), torch.tensor([10]), torch.ones(1, 77, 16)

    with torch.no_grad():
        outputs = [one.predict(latents, timesteps, states) for one in (plain, model)]

    assert outputs[0].equal(outputs[1])


def test_the_start_is_a_function_of_the_seed(tiny_pipeline: Path) -> None:
    first, same, other = (adapted(tiny_pipeline, seed=seed)[1].layers[0].down for seed in (1, 1, 2))

    assert first.equal(same)
    assert not first.equal(other)


def test_down_starts_as_a_linear_layer_does(tiny_pipeline: Path) -> None:
    _, adapters = adapted(tiny_pipeline, network=Network(rank=64))
    layer = next(layer for layer in adapters.layers if layer.path.endswith("mlp.fc2"))
    bound = layer.down.shape[1] ** -0.5

    assert layer.down.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert layer.down.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_the_text_encoder_can_be_left_out(tiny_pipeline: Path) -> None:
    _, adapters = adapted(tiny_pipeline, network=Network(rank=4, text_encoder=False))

    assert adapters.of("text_encoder") == ()
    assert len(adapters.of("unet")) == 192


def test_the_forward_pass_scales_by_alpha_over_rank(tiny_pipeline: Path) -> None:
    _, adapters = adapted(tiny_pipeline)
    layer = next(layer for layer in adapters.layers if layer.path.endswith("mlp.fc1"))
    layer.up.data.fill_(0.1)
    x = torch.ones(1, layer.down.shape[1])

    with torch.no_grad():
        change = layer.layer(x) - layer.layer.base_layer(x)

    torch.testing.assert_close(change, x @ layer.down.T @ layer.up.T * (2.0 / 4))
