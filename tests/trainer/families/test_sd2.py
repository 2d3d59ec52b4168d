"""What is different in Stable Diffusion 2.x."""

from pathlib import Path

import pytest
import torch

from lora_trainer.families import catalogue
from lora_trainer.families.stable_diffusion import StableDiffusion


@pytest.fixture(scope="module")
def model(tiny_sd2: Path) -> StableDiffusion:
    """The model with two chunks; read only."""
    return catalogue.load(tiny_sd2, torch.device("cpu"), precision=torch.float32, max_tokens=150)


def test_it_predicts_what_its_scheduler_says(model: StableDiffusion) -> None:
    assert (model.family, model.prediction) == ("sd2", "v_prediction")


def test_texts_are_padded_with_zero(model: StableDiffusion) -> None:
    end = model.texts[0].tokenizer.eos_token_id

    first, second = model.tokenize(["red"]).ids[0, 0].tolist()

    assert first[2:] == [end, *[0] * 74]
    assert second[1:] == [end, *[0] * 75]


def test_its_ordinary_text_states_are_used(model: StableDiffusion) -> None:
    tokens = model.tokenize(["a red cat"])

    with torch.no_grad():
        states, expected = model.encode_texts(tokens).states, model.texts[0].encoder(tokens.ids[0, 0]).last_hidden_state

    torch.testing.assert_close(states[0, :76], expected[0, :76])
