"""lora_trainer.captioning.blip: a real BLIP, of random weights, describes pictures."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer, BlipForConditionalGeneration

from lora_trainer.captioning.blip import Captioner, load_captioner
from lora_trainer.captioning.model_files import WEIGHTS, digests_of
from lora_trainer.captioning.search import Search
from lora_trainer.errors import BaseModelUnavailable
from tests.support.tiny_blip import WORDS, write_tiny_blip

FIELD = "--model"
PICTURES = [
    Image.new("RGB", size, colour) for size, colour in (((40, 64), "red"), ((64, 40), "blue"), ((9, 9), "white"))
]


@pytest.fixture(scope="module")
def captioner(tiny_blip: Path) -> Captioner:
    return load_captioner(tiny_blip, torch.device("cpu"), field=FIELD)


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def described_step_by_step(folder: Path, image: Image.Image, search: Search) -> str:
    """Greedy search written out: resize, normalise, then always the likeliest next token."""
    model = BlipForConditionalGeneration.from_pretrained(folder)
    tokenizer = BertTokenizer.from_pretrained(folder)
    pixels = torch.tensor(list(image.resize((32, 32), Image.Resampling.BICUBIC).get_flattened_data()))
    pixels = pixels.reshape(32, 32, 3).permute(2, 0, 1) / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    with torch.no_grad():
        seen = model.vision_model(((pixels - mean) / deviation)[None])[0]
        tokens = [model.config.text_config.bos_token_id]
        while len(tokens) <= search.max_tokens:
            scores = model.text_decoder(torch.tensor([tokens]), encoder_hidden_states=seen).logits[0, -1]
            if len(tokens) <= search.min_tokens:
                scores[model.config.text_config.sep_token_id] = -torch.inf
            tokens.append(int(scores.argmax()))
            if tokens[-1] == model.config.text_config.sep_token_id:
                break
    return str(tokenizer.decode(tokens[1:], skip_special_tokens=True))


def test_a_picture_gets_the_likeliest_words(captioner: Captioner, tiny_blip: Path) -> None:
    search = Search(beams=1, min_tokens=2, max_tokens=8)

    found = captioner.describe(PICTURES, search)

    assert found == [described_step_by_step(tiny_blip, picture, search) for picture in PICTURES]


def test_what_is_said_depends_on_the_picture(captioner: Captioner) -> None:
    assert len(set(captioner.describe(PICTURES, Search()))) == len(PICTURES)


def test_words_are_of_the_vocabulary_and_as_many_as_wanted(captioner: Captioner) -> None:
    found = captioner.describe(PICTURES, Search(beams=3, min_tokens=4, max_tokens=6))

    for text in found:
        assert 4 <= len(text.split()) <= 6
        assert set(text.split()) <= set(WORDS)


def test_pictures_together_get_the_words_that_each_gets_alone(captioner: Captioner) -> None:
    alone = [captioner.describe([picture], Search())[0] for picture in PICTURES]

    assert captioner.describe(PICTURES, Search()) == alone


def test_settings_of_generation_in_the_models_files_change_nothing(
    captioner: Captioner, tiny_blip: Path, tmp_path: Path
) -> None:
    folder = copied(tiny_blip, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    wanton = {"do_sample": True, "num_beams": 5, "repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "max_length": 3}
    config["text_config"] |= wanton
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(wanton))

    other = load_captioner(folder, torch.device("cpu"), field=FIELD)

    assert other.describe(PICTURES, Search()) == captioner.describe(PICTURES, Search())


def test_files_as_older_programs_wrote_them_give_the_same_words(
    captioner: Captioner, tiny_blip: Path, tmp_path: Path
) -> None:
    folder = copied(tiny_blip, tmp_path / "older")
    weights = load_file(folder / WEIGHTS)
    head = "text_decoder.cls.predictions"
    weights[f"{head}.decoder.weight"] = weights["text_decoder.bert.embeddings.word_embeddings.weight"].clone()
    weights[f"{head}.decoder.bias"] = weights[f"{head}.bias"].clone()
    weights["text_decoder.bert.embeddings.position_ids"] = torch.arange(64)[None]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    for name in ("tokenizer.json", "generation_config.json"):
        (folder / name).unlink()

    older = load_captioner(folder, torch.device("cpu"), field=FIELD)

    assert older.describe(PICTURES, Search()) == captioner.describe(PICTURES, Search())


def test_another_model_has_another_digest(tiny_blip: Path, tmp_path: Path) -> None:
    other = write_tiny_blip(tmp_path / "other", seed=1)

    ours, theirs = digests_of(tiny_blip, field=FIELD), digests_of(other, field=FIELD)

    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == ["captioner/model.safetensors"]


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "preprocessor_config.json"])
def test_a_missing_file_is_named(tiny_blip: Path, tmp_path: Path, name: str) -> None:
    folder = copied(tiny_blip, tmp_path / "damaged")
    (folder / name).unlink()

    with pytest.raises(BaseModelUnavailable, match=rf"^--model holds no {name}"):
        load_captioner(folder, torch.device("cpu"), field=FIELD)


def test_a_missing_vocabulary_is_named(tiny_blip: Path, tmp_path: Path) -> None:
    folder = copied(tiny_blip, tmp_path / "damaged")
    for name in ("vocab.txt", "tokenizer.json"):
        (folder / name).unlink()

    with pytest.raises(BaseModelUnavailable, match=r"holds no tokenizer\.json or vocab\.txt"):
        load_captioner(folder, torch.device("cpu"), field=FIELD)


def test_pickled_weights_are_refused(tiny_blip: Path, tmp_path: Path) -> None:
    folder = copied(tiny_blip, tmp_path / "pickled")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")

    with pytest.raises(BaseModelUnavailable, match=r"pickled weights .* are refused"):
        load_captioner(folder, torch.device("cpu"), field=FIELD)


def test_a_model_of_another_kind_is_refused(tiny_blip: Path, tmp_path: Path) -> None:
    folder = copied(tiny_blip, tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))

    with pytest.raises(BaseModelUnavailable, match="of the kind clip, but only blip"):
        load_captioner(folder, torch.device("cpu"), field=FIELD)


def test_a_configuration_that_is_no_json_is_refused(tiny_blip: Path, tmp_path: Path) -> None:
    folder = copied(tiny_blip, tmp_path / "damaged")
    (folder / "config.json").write_text("{")

    with pytest.raises(BaseModelUnavailable, match=r"config\.json cannot be read"):
        digests_of(folder, field=FIELD)


def test_weights_that_are_missing_in_the_file_are_named(tiny_blip: Path, tmp_path: Path) -> None:
    folder = copied(tiny_blip, tmp_path / "partial")
    weights = load_file(folder / WEIGHTS)
    weights.pop("vision_model.post_layernorm.weight")
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    with pytest.raises(BaseModelUnavailable, match=r"lacks 1 weights, such as vision_model\.post_layernorm\.weight"):
        load_captioner(folder, torch.device("cpu"), field=FIELD)


def test_half_a_file_of_weights_is_refused(tiny_blip: Path, tmp_path: Path) -> None:
    folder = copied(tiny_blip, tmp_path / "half")
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])

    with pytest.raises(BaseModelUnavailable, match="--model cannot be loaded"):
        load_captioner(folder, torch.device("cpu"), field=FIELD)


def test_a_tokenizer_of_another_model_is_refused(tiny_blip: Path, tmp_path: Path) -> None:
    folder = copied(tiny_blip, tmp_path / "mixed")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[SEP]\n[PAD]\n[UNK]\n[CLS]\n[MASK]\na\n")

    with pytest.raises(BaseModelUnavailable, match=r"ends texts by 0, but the model knows 19 and ends them by 3"):
        load_captioner(folder, torch.device("cpu"), field=FIELD)


def test_a_file_is_no_folder(tiny_blip: Path) -> None:
    with pytest.raises(BaseModelUnavailable, match=r"model\.safetensors is a file; give the folder"):
        load_captioner(tiny_blip / WEIGHTS, torch.device("cpu"), field=FIELD)
