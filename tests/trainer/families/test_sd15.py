"""Loading, texts and latents of Stable Diffusion 1.x."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.families import sd15
from lora_trainer.families.sd15 import StableDiffusion15

CPU = torch.device("cpu")


def load(folder: Path, *, clip_skip: int = 1, max_tokens: int = 75) -> StableDiffusion15:
    return sd15.load(folder, CPU, precision=torch.float32, clip_skip=clip_skip, max_tokens=max_tokens)


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path) -> StableDiffusion15:
    """The model with one chunk and no clip skip; read only."""
    return load(tiny_pipeline)


@pytest.fixture
def copy(tiny_pipeline: Path, tmp_path: Path) -> Path:
    """A model folder to be changed."""
    shutil.copytree(tiny_pipeline, tmp_path / "copy")
    return tmp_path / "copy"


def words(count: int) -> str:
    """A text of `count` words that are one token each."""
    return " ".join(["a"] * count)


def contents(model: StableDiffusion15, text: str) -> list[int]:
    """Words in each chunk of a text."""
    ends = {model.tokenizer.bos_token_id, model.tokenizer.eos_token_id}
    return [sum(token not in ends for token in chunk) for chunk in model.tokenize([text])[0].tolist()]


def test_a_long_text_fills_chunk_after_chunk(tiny_pipeline: Path) -> None:
    model = load(tiny_pipeline, max_tokens=225)

    assert contents(model, words(160)) == [75, 75, 10]
    assert contents(model, words(10)) == [10, 0, 0]


def test_a_text_of_exactly_75_tokens_is_kept_whole(model: StableDiffusion15) -> None:
    ids = model.tokenize([words(75)])[0, 0].tolist()

    assert ids[0] == model.tokenizer.bos_token_id
    assert ids[-1] == model.tokenizer.eos_token_id
    assert len(set(ids[1:-1])) == 1


def test_a_longer_text_is_cut(model: StableDiffusion15) -> None:
    assert model.tokenize([words(80)]).equal(model.tokenize([words(75)]))
    assert model.count_tokens([words(80), "red"]) == [80, 1]


def test_every_chunk_starts_and_ends_as_clip_expects(tiny_pipeline: Path) -> None:
    model = load(tiny_pipeline, max_tokens=150)

    ids = model.tokenize([words(100)])[0]

    assert ids.shape == (2, 77)
    assert ids[:, 0].tolist() == [model.tokenizer.bos_token_id] * 2
    assert ids[:, -1].tolist() == [model.tokenizer.eos_token_id] * 2


def test_clip_skip_1_is_the_ordinary_output(model: StableDiffusion15) -> None:
    ids = model.tokenize(["a red cat"])

    with torch.no_grad():
        states, expected = model.encode_texts(ids), model.text_encoder(ids[:, 0]).last_hidden_state

    torch.testing.assert_close(states, expected)


def test_clip_skip_2_is_the_layer_before_with_the_final_norm(tiny_pipeline: Path) -> None:
    model = load(tiny_pipeline, clip_skip=2)
    ids = model.tokenize(["a red cat"])
    seen = {}
    hook = model.text_encoder.encoder.layers[0].register_forward_hook(lambda *call: seen.update(out=call[2]))

    with torch.no_grad():
        states = model.encode_texts(ids)
        output = seen["out"][0] if isinstance(seen["out"], tuple) else seen["out"]
        expected = torch.nn.functional.layer_norm(
            output, output.shape[-1:], *(p for p in model.text_encoder.final_layer_norm.parameters()), eps=1e-5
        )
    hook.remove()

    torch.testing.assert_close(states, expected.reshape(states.shape))
    assert model.unused_text_layers == ("encoder.layers.1.",)


def test_several_chunks_keep_the_first_start_all_words_and_the_last_end(tiny_pipeline: Path) -> None:
    model = load(tiny_pipeline, max_tokens=150)
    ids = model.tokenize([words(100)])

    with torch.no_grad():
        states = model.encode_texts(ids)[0]
        first, second = model.text_encoder(ids[0]).last_hidden_state

    assert states.shape[0] == 152
    torch.testing.assert_close(states, torch.cat([first[:1], first[1:-1], second[1:-1], second[-1:]]))


def test_a_latent_does_not_depend_on_the_batch(model: StableDiffusion15) -> None:
    pixels = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1

    together, alone = model.encode_images(pixels), model.encode_images(pixels[1:])

    torch.testing.assert_close(together[1:], alone)
    assert together.shape == (2, 4, 8, 8)


def test_latents_are_scaled_means_of_the_posterior(model: StableDiffusion15) -> None:
    pixels = torch.zeros(1, 3, 64, 64)

    with torch.no_grad():
        mean = model.vae.encode(pixels).latent_dist.mean

    torch.testing.assert_close(model.encode_images(pixels), mean * 0.18215)


def test_the_vae_stays_in_fp32_when_the_rest_does_not(tiny_pipeline: Path) -> None:
    model = sd15.load(tiny_pipeline, CPU, precision=torch.bfloat16)

    dtypes = {next(part.parameters()).dtype for part in (model.unet, model.text_encoder)}
    assert dtypes == {torch.bfloat16}
    assert next(model.vae.parameters()).dtype == torch.float32


def test_nothing_of_the_base_is_trained(model: StableDiffusion15) -> None:
    parts = (model.unet, model.text_encoder, model.vae)

    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())


def test_an_fp16_variant_is_loaded(copy: Path, model: StableDiffusion15) -> None:
    for path in list(copy.rglob("*.safetensors")):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))

    loaded = load(copy)

    assert loaded.unet.conv_in.weight.equal(model.unet.conv_in.weight)


def test_pickled_weights_are_refused(copy: Path) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))

    with pytest.raises(BaseModelUnavailable, match=r"no unet/diffusion_pytorch_model\.safetensors; pickled weights"):
        load(copy)


def test_damaged_weights_are_refused(copy: Path) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(BaseModelUnavailable, match="unet cannot be loaded"):
        load(copy)


def test_missing_weights_are_refused_instead_of_drawn_at_random(copy: Path, model: StableDiffusion15) -> None:
    weights = {name: tensor for name, tensor in model.text_encoder.state_dict().items() if "layers.1.mlp" not in name}
    save_file(weights, copy / "text_encoder" / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(BaseModelUnavailable, match=r"text_encoder lacks 4 weights, such as encoder\.layers\.1"):
        load(copy)


def test_a_missing_tokenizer_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "tokenizer")

    with pytest.raises(BaseModelUnavailable, match="tokenizer cannot be loaded"):
        load(copy)


def test_a_tokenizer_of_another_vocabulary_is_refused(copy: Path) -> None:
    path = copy / "tokenizer" / "tokenizer.json"
    tokens = json.loads(path.read_text())
    tokens["model"]["vocab"].pop("re")
    tokens["model"]["vocab"].pop("red</w>")
    tokens["model"]["merges"] = []
    path.write_text(json.dumps(tokens))

    with pytest.raises(BaseModelUnavailable, match=r"tokenizer has \d+ tokens, but the text encoder knows 192"):
        load(copy)


def test_clip_skip_beyond_the_layers_is_refused(tiny_pipeline: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"clipSkip is 3, but the text encoder has only 2 layers"):
        load(tiny_pipeline, clip_skip=3)


def test_the_digest_follows_the_content_not_the_place(copy: Path, tiny_pipeline: Path) -> None:
    same = sd15.digest_of(copy)
    (copy / "README.md").write_text("not loaded")
    still = sd15.digest_of(copy)
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")

    assert same == still == sd15.digest_of(tiny_pipeline)
    assert sd15.digest_of(copy) != same
