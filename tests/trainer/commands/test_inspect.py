"""`lora inspect`."""

import json
from pathlib import Path

from lora_trainer.commands.inspect import inspect
from lora_trainer.lora.formats import save_adapter
from tests.support.adapter_files import CONVOLUTION, make_adapter, make_module, replaced
from tests.support.command import run_command


def write(folder: Path) -> Path:
    """An adapter with two ranks in its UNet."""
    metadata = {"ss_tag_frequency": '{"1_a": {"[hina]": 3}}', "modelspec.trigger_phrase": "hina"}
    adapter = replaced(make_adapter(metadata=metadata), make_module(CONVOLUTION, rank=2))
    save_adapter(folder / "a.safetensors", adapter)
    return folder / "a.safetensors"


def test_kind_words_and_parts_are_shown(tmp_path: Path) -> None:
    result = run_command(inspect, write(tmp_path))

    assert result.exit_code == 0
    for text in ("locon for sd15 in kohya format", "trigger phrase: hina", "tags: [hina] (3)", "text_encoder"):
        assert text in result.stdout


def test_the_same_is_told_as_json(tmp_path: Path) -> None:
    result = run_command(inspect, write(tmp_path), "-o", "json")

    summary = json.loads(result.stdout)
    assert (summary["type"], summary["tags"], summary["parts"]["unet"]["ranks"]) == ("locon", [["[hina]", 3]], [2, 4])


def test_a_file_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("nothing")

    result = run_command(inspect, tmp_path / "a.safetensors")

    assert (result.exit_code, "is no .safetensors file, or cut off" in result.stderr) == (64, True)


def test_words_of_the_file_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    hostile = "\x1b]0;owned\x07\x9b2J[bold]"
    adapter = make_adapter(metadata={"ss_tag_frequency": json.dumps({"1_a": {hostile: 3}}), "note": hostile})
    save_adapter(tmp_path / "[bold]x.safetensors", adapter)

    result = run_command(inspect, tmp_path / "[bold]x.safetensors")

    assert result.exit_code == 0
    assert "\N{REPLACEMENT CHARACTER}]0;owned\N{REPLACEMENT CHARACTER}" in result.stdout
    assert "[bold]x.safetensors" in result.stdout
    assert not set("\x1b\x07\x9b").intersection(result.stdout)
