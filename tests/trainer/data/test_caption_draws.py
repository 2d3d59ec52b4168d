"""Texts of draws: the order of operations of sd-scripts, and random decisions that depend on the draw alone."""

import math
from collections import Counter
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_api.dataset_spec import Captions, TokenWarmup
from lora_trainer.data.caption_draws import (
    CaptionDraw,
    constant_caption,
    drawn_caption,
    rules_are_constant,
    warmup_steps,
)

DRAW = CaptionDraw(seed=3, epoch=1, step=0, total_steps=100, index=0, occurrence=0)
FIVE = "a, b, c, d, e"


def text(caption: str, draw: CaptionDraw = DRAW, **rules: object) -> str:
    return drawn_caption((caption,), Captions(**rules), draw)


def texts(caption: str, count: int, **rules: object) -> list[str]:
    return [text(caption, replace(DRAW, index=index), **rules) for index in range(count)]


def expected_band(count: int, share: float) -> tuple[float, float]:
    """Four standard deviations of the binomial distribution around its mean."""
    spread = 4 * math.sqrt(count * share * (1 - share))
    return count * share - spread, count * share + spread


def test_without_rules_the_caption_stays_as_it_is_written() -> None:
    assert text("sks man,b ,  c") == "sks man,b ,  c"


def test_prefix_and_suffix_stand_around_with_a_blank() -> None:
    assert text("man", prefix="photo,", suffix=", best") == "photo, man , best"


def test_a_dropped_caption_is_empty_with_its_affixes_and_kept_tags() -> None:
    assert text(FIVE, prefix="p", suffix="s", keep_tokens=2, dropout_fraction=1.0) == ""


def test_as_many_captions_are_dropped_as_the_fraction_says() -> None:
    low, high = expected_band(2000, 0.2)

    assert low < texts("man", 2000, dropout_fraction=0.2).count("") < high


def test_every_nth_epoch_is_dropped_and_no_other() -> None:
    drawn = [text("man", replace(DRAW, epoch=epoch), dropout_every_n_epochs=3) for epoch in range(1, 8)]

    assert drawn == ["man", "man", "", "man", "man", "", "man"]


def test_wildcards_draw_each_choice_about_equally() -> None:
    counts = Counter(texts("a {red|green|blue} hat", 1500, wildcards=True))

    assert set(counts) == {"a red hat", "a green hat", "a blue hat"}
    low, high = expected_band(1500, 1 / 3)
    assert all(low < count < high for count in counts.values())


def test_two_wildcards_of_a_caption_are_drawn_apart() -> None:
    assert set(texts("{a|b} {a|b}", 60, wildcards=True)) == {"a a", "a b", "b a", "b b"}


@pytest.mark.parametrize(
    ("caption", "drawn"),
    [("a {{b}} c", "a {b} c"), ("{{{x}}}", "{x}"), ("{only}", "only"), ("{} {", "{} {"), ("{{a|b}}", "{a|b}")],
)
def test_doubled_braces_are_braces(caption: str, drawn: str) -> None:
    assert text(caption, wildcards=True) == drawn


def test_braces_are_letters_without_wildcards() -> None:
    assert text("{a|b} {{c}}") == "{a|b} {{c}}"


def test_one_of_several_lines_is_drawn_and_affixes_stand_around_it() -> None:
    rules = Captions(wildcards=True, prefix="p", suffix="s")

    drawn = {drawn_caption(("one", "two"), rules, replace(DRAW, index=index)) for index in range(40)}

    assert drawn == {"p one s", "p two s"}


def test_kept_tags_stay_and_all_others_are_shuffled() -> None:
    drawn = Counter(texts("sks man,b,c,d", 1200, shuffle=True, keep_tokens=1))

    assert set(drawn) == {", ".join(("sks man", *rest)) for rest in permutations("bcd")}
    low, high = expected_band(1200, 1 / 6)
    assert all(low < count < high for count in drawn.values())


def test_the_separator_of_kept_tags_says_what_stays_in_front_and_at_the_end() -> None:
    caption = "1girl, miku ||| stage, mic, smile ||| best, general"

    drawn = set(texts(caption, 80, shuffle=True, keep_tokens_separator="|||"))

    middles = (", ".join(middle) for middle in permutations(("stage", "mic", "smile")))
    assert drawn == {f"1girl, miku, {middle}, best, general" for middle in middles}


@pytest.mark.parametrize(
    ("caption", "drawn"),
    [("a ||| b, c", "a, b, c"), ("a ||| b ||| c ||| d", "a, b, c, d"), ("|||a", "a"), ("a,b", "a,b")],
)
def test_the_separator_of_kept_tags_never_stays(caption: str, drawn: str) -> None:
    assert text(caption, keep_tokens_separator="|||") == drawn


def test_another_separator_is_kept_when_tags_are_joined() -> None:
    assert set(texts("a;b, c", 20, shuffle=True, separator=";")) == {"a; b, c", "b, c; a"}


def test_the_secondary_separator_holds_parts_together_and_becomes_the_separator() -> None:
    drawn = set(texts("sky;;;cloud, sea", 20, shuffle=True, secondary_separator=";;;"))

    assert drawn == {"sky,cloud, sea", "sea, sky,cloud"}


def test_the_secondary_separator_is_resolved_without_shuffling_too() -> None:
    assert text("sky;;;cloud, sea", secondary_separator=";;;") == "sky,cloud, sea"


@pytest.mark.parametrize(
    ("step", "drawn"), [(0, "a"), (5, "a, b"), (10, "a, b, c"), (19, "a, b, c, d"), (20, FIVE), (99, FIVE)]
)
def test_the_warm_up_begins_with_few_tags(step: int, drawn: str) -> None:
    warmup = TokenWarmup(min_tags=1, steps=20)

    assert text(FIVE, replace(DRAW, step=step), token_warmup=warmup) == drawn


def test_the_warm_up_never_shows_more_tags_than_there_are() -> None:
    warmup = TokenWarmup(min_tags=9, steps=20)

    assert text("a, b", replace(DRAW, step=13), token_warmup=warmup) == "a, b"


def test_the_warm_up_counts_the_tags_that_may_move() -> None:
    warmup = TokenWarmup(min_tags=1, steps=20)

    assert text(FIVE, token_warmup=warmup, keep_tokens=2) == "a, b, c"


@pytest.mark.parametrize(("fraction", "total", "steps"), [(0.2, 100, 20), (0.29, 100, 29), (0.5, 5, 2), (0.001, 9, 0)])
def test_a_warm_up_may_be_a_fraction_of_all_steps(fraction: float, total: int, steps: int) -> None:
    assert warmup_steps(TokenWarmup(fraction=fraction), total) == steps


def test_as_many_tags_are_dropped_as_the_fraction_says_but_no_kept_ones() -> None:
    drawn = texts("kept, a, b, c, d", 500, tag_dropout_fraction=0.3, keep_tokens=1)

    low, high = expected_band(2000, 0.7)
    assert all(caption.startswith("kept") for caption in drawn)
    assert low < sum(caption.count(",") for caption in drawn) < high


def test_dropped_tags_are_dropped_apart_from_each_other() -> None:
    counts = Counter(texts("a, b", 2000, tag_dropout_fraction=0.5))

    low, high = expected_band(2000, 0.25)
    assert all(low < counts[caption] < high for caption in ("", "a", "b", "a, b"))


def test_commas_in_brackets_of_weighted_captions_separate_nothing() -> None:
    drawn = set(texts("(a, b:1.2), [c, (d, e)]", 20, shuffle=True, weighted=True))

    assert drawn == {"(a, b:1.2), [c, (d, e)]", "[c, (d, e)], (a, b:1.2)"}


@pytest.mark.parametrize("caption", [r"\(a, b\)", "(a, b", "a, b)", "[a, b)"])
def test_brackets_that_are_no_pair_protect_nothing(caption: str) -> None:
    first, second = caption.split(", ")

    assert f"{second}, {first}" in texts(caption, 20, shuffle=True, weighted=True)


def test_brackets_mean_nothing_in_plain_captions() -> None:
    assert "b), (a" in texts("(a, b)", 20, shuffle=True)


@settings(max_examples=60, deadline=None)
@given(
    tags=st.lists(st.text("abcxyz ", min_size=1, max_size=6).map(str.strip).filter(bool), min_size=1, max_size=12),
    keep=st.integers(0, 13),
    index=st.integers(0, 1000),
)
def test_shuffling_keeps_every_tag_and_the_leading_ones_in_place(tags: list[str], keep: int, index: int) -> None:
    drawn = text(",".join(tags), replace(DRAW, index=index), shuffle=True, keep_tokens=keep).split(", ")

    assert drawn[:keep] == tags[:keep]
    assert Counter(drawn) == Counter(tags)


@settings(max_examples=60, deadline=None)
@given(rate=st.floats(0.01, 1.0), keep=st.integers(0, 5), index=st.integers(0, 1000))
def test_dropping_tags_leaves_the_others_in_order(rate: float, keep: int, index: int) -> None:
    drawn = text(FIVE, replace(DRAW, index=index), tag_dropout_fraction=rate, keep_tokens=keep)

    kept = [tag for tag in drawn.split(", ") if tag]
    assert kept == sorted(kept)
    assert set(FIVE.split(", ")[:keep]) <= set(kept)


@pytest.mark.parametrize("change", ["seed", "epoch", "index", "occurrence"])
def test_every_part_of_a_draw_changes_its_text(change: str) -> None:
    drawn = {text("a,b,c,d,e,f,g,h", replace(DRAW, **{change: value}), shuffle=True) for value in range(1, 6)}

    assert len(drawn) == 5


def test_the_same_draw_gives_the_same_text_at_every_step() -> None:
    rules = {"shuffle": True, "tag_dropout_fraction": 0.4, "dropout_fraction": 0.3}

    assert text(FIVE, DRAW, **rules) == text(FIVE, replace(DRAW, step=50, total_steps=77), **rules)


def test_one_decision_does_not_change_another() -> None:
    plain, dropping = texts(FIVE, 50, shuffle=True), texts(FIVE, 50, shuffle=True, dropout_fraction=0.5)

    assert all(after in ("", before) for before, after in zip(plain, dropping, strict=True))
    assert len(set(dropping)) > 10


@pytest.mark.parametrize(
    "rules",
    [
        {"shuffle": True},
        {"dropout_fraction": 0.1},
        {"dropout_every_n_epochs": 2},
        {"tag_dropout_fraction": 0.1},
        {"token_warmup": TokenWarmup(steps=3)},
        {"wildcards": True},
    ],
)
def test_rules_that_draw_are_not_constant(rules: dict[str, object]) -> None:
    assert not rules_are_constant(Captions(**rules))


def test_a_constant_caption_is_the_text_of_every_draw() -> None:
    rules = Captions(prefix="p,", suffix=", s", keep_tokens_separator="|||", secondary_separator=";;")

    assert rules_are_constant(rules)
    drawn = {drawn_caption(("a ||| b;;c",), rules, replace(DRAW, index=index)) for index in range(9)}
    assert drawn == {constant_caption("a ||| b;;c", rules)} == {"p, a, b,c, s"}
