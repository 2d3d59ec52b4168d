"""CLIP's vocabulary as it ships with the package."""

import subprocess
import sys

from lora_trainer.families.vocabulary import clip_tokenizer, count_tokens


def test_texts_get_the_ids_of_clip() -> None:
    tokenizer = clip_tokenizer()

    ids = tokenizer("a photo of an astronaut riding a horse on mars").input_ids

    assert ids == [49406, 320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496, 49407]
    assert len(tokenizer) == 49408


def test_each_family_pads_its_own_way() -> None:
    assert clip_tokenizer().pad_token_id == 49407
    assert clip_tokenizer("!").pad_token_id == 0


def test_tokens_are_counted_uncut() -> None:
    assert count_tokens(["", "a photo", "cat " * 200]) == [0, 2, 200]


def test_the_syntax_of_emphasis_counts_only_where_it_is_text() -> None:
    assert count_tokens(["a (photo:1.3)"], weighted=True) == [2]
    assert count_tokens(["a (photo:1.3)"]) == [8]


def test_counting_does_not_import_torch() -> None:
    program = "import sys; from lora_trainer.families.vocabulary import count_tokens; count_tokens(['a'])"

    subprocess.run([sys.executable, "-c", f"{program}; assert 'torch' not in sys.modules"], check=True)
