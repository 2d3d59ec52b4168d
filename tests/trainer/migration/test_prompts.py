"""Prompt files of sd-scripts."""

import pytest

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.migration.prompts import read_prompts

DEFAULTS = {"widthPx": 512, "heightPx": 512, "steps": 30, "guidance": 7.5}


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("a cat", {"prompt": "a cat"}),
        ("a cat --n ugly, red-eyed dog --w 770 --h 30", {"negativePrompt": "ugly, red-eyed dog", "widthPx": 768}),
        ("a cat --n x --h 30", {"heightPx": 64}),
        ("a cat --s 20 --l 5.5 --d 9", {"steps": 20, "guidance": 5.5, "seed": 9}),
        ("a cat --ss k_euler_a", {"sampler": "euler_a"}),
        ("a cat --ss k_euler", {"sampler": "euler"}),
        ("a cat --ss ddim", {"sampler": "ddim"}),
        ("a cat --ss dpmsolver++", {"sampler": "dpmpp_2m"}),
        ("a cat --ss dpm++_2m_karras", {"sampler": "dpmpp_2m_karras"}),
    ],
)
def test_options_follow_the_prompt(line: str, fields: dict[str, object]) -> None:
    (found,), _ = read_prompts(line)

    assert found | fields == found
    assert found["prompt"] == "a cat"


def test_what_a_line_does_not_say_has_the_default_of_sd_scripts() -> None:
    assert read_prompts("# a remark\n\nsky\n") == (({"prompt": "sky", **DEFAULTS},), ())


def test_toml_has_defaults_for_all_its_prompts() -> None:
    defaults = "[prompt]\nwidth = 640\nsample_steps = 10\n"
    text = defaults + '[[prompt.subset]]\nprompt = "a"\n[[prompt.subset]]\nprompt = "b"\nwidth = 768\n'

    found, _ = read_prompts(text, suffix=".toml")

    assert [(one["prompt"], one["widthPx"], one["steps"]) for one in found] == [("a", 640, 10), ("b", 768, 10)]


def test_json_lists_prompts() -> None:
    found, _ = read_prompts('[{"prompt": "a", "negative_prompt": "b", "scale": 3}, "c"]', suffix=".json")

    assert [(one["prompt"], one.get("negativePrompt"), one["guidance"]) for one in found] == [
        ("a", "b", 3.0),
        ("c", None, 7.5),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a --cn pose.png", "--cn pose.png"),
        ("a --ss heun", "heun"),
        ("a" * 1025, "a" * 60 + "…"),
        ("--n only a negative", "…"),
    ],
)
def test_what_cannot_be_drawn_so_is_told(text: str, told: str) -> None:
    _, leftovers = read_prompts(" " + text)

    assert [leftover.value for leftover in leftovers] == [told]


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [("a --s many", ".txt", "steps is 'many'"), ("{", ".json", "no valid JSON"), ("=", ".toml", "no valid TOML")],
)
def test_nonsense_is_refused(text: str, suffix: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        read_prompts(text, suffix=suffix)
