"""Which tags mean the same."""

import pytest

from lora_trainer.curation.tag_spelling import SimilarTags, similar_tags


@pytest.mark.parametrize(
    ("way", "counts"),
    [
        ("spelling", {"long hair": 9, "Long_hair": 2}),
        ("spelling", {"t-shirt": 9, "tshirt": 8, "T shirt": 1}),
        ("plural", {"earrings": 5, "earring": 4}),
        ("plural", {"cherry": 5, "cherries": 4}),
        ("plural", {"bench": 5, "benches": 4}),
        ("typo", {"looking at viewer": 30, "looking at viwer": 1}),
        ("typo", {"standing": 9, "stnading": 1}),
        ("typo", {"necklace": 9, "neckluce": 3}),
    ],
)
def test_tags_that_mean_the_same_are_grouped_with_the_most_frequent_first(way: str, counts: dict[str, int]) -> None:
    assert list(similar_tags(counts)) == [SimilarTags(way, tuple(counts))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "tags",
    [
        ("white shirt", "white skirt"),
        ("arm up", "arms up"),
        ("1girls", "2girls"),
        ("glass", "glasses"),
        ("jacket", "racket"),
        ("long hair", "long chair"),
        ("red eyes", "blue eyes"),
        ("dress", "dresser"),
        ("hat", "hut"),
    ],
)
def test_tags_that_mean_something_else_are_left_alone(tags: tuple[str, str]) -> None:
    assert list(similar_tags({tags[0]: 30, tags[1]: 1})) == []


def test_a_tag_that_is_almost_as_frequent_is_no_typo() -> None:
    assert list(similar_tags({"standing": 9, "stranding": 4})) == []


def test_several_spellings_of_a_mistyped_tag_count_together() -> None:
    found = list(similar_tags({"long necklace": 5, "long_necklace": 4, "long necklce": 3}))

    assert found == [
        SimilarTags("spelling", ("long necklace", "long_necklace")),
        SimilarTags("typo", ("long necklace", "long necklce")),
    ]
