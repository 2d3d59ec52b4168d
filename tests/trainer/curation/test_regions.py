"""Which part of a picture a crop is."""

import pytest

from lora_trainer.curation.regions import Box, NoRegion, Part, Person, region_of

EXACT: dict[Part, float] = {"face": 0.0, "body": 0.0, "full": 0.0}
STANDING = Person(face=(40, 10, 60, 30), person=(20, 0, 80, 200))


@pytest.mark.parametrize(
    ("part", "person", "box"),
    [
        ("face", STANDING, (40, 10, 60, 30)),
        ("full", STANDING, (20, 0, 80, 200)),
        ("body", STANDING, (20, 30, 80, 200)),
        # Lying with the head at the left, and with the head at the right.
        ("body", Person((0, 20, 30, 60), (0, 10, 150, 90)), (30, 10, 150, 90)),
        ("body", Person((120, 20, 150, 60), (0, 10, 150, 90)), (0, 10, 120, 90)),
        # Head down.
        ("body", Person((40, 150, 60, 190), (20, 0, 80, 200)), (20, 0, 80, 150)),
        # A face outside of the person takes nothing from it.
        ("body", Person((100, 10, 120, 30), (20, 0, 80, 200)), (20, 0, 80, 200)),
    ],
)
def test_each_part_is_what_its_boxes_say(part: Part, person: Person, box: Box) -> None:
    assert region_of(part, person, (150, 200), EXACT) == box


def test_a_margin_grows_a_box_at_each_side_within_the_picture() -> None:
    margins: dict[Part, float] = {"face": 0.6, "body": 0.1, "full": 0.1}

    assert region_of("face", STANDING, (150, 200), margins) == (28, 0, 72, 42)
    assert region_of("full", STANDING, (150, 200), margins) == (14, 0, 86, 200)
    # The face that is left out is the one that was found, not the larger one that is cut.
    assert region_of("body", STANDING, (150, 200), margins) == (14, 30, 86, 200)


@pytest.mark.parametrize(
    ("part", "person", "message"),
    [
        ("face", Person(person=(0, 0, 9, 9)), "has no face box"),
        ("full", Person(face=(0, 0, 9, 9)), "has no person box"),
        ("body", Person(person=(0, 0, 9, 9)), "has no face box"),
        ("body", Person((0, 0, 9, 9), (2, 2, 8, 8)), "has no body beside its face"),
        ("full", Person(person=(0, 0, 9, 300)), "is 150x200 px, but its person box reaches to 9, 300"),
    ],
)
def test_a_part_that_cannot_be_cut_says_why(part: Part, person: Person, message: str) -> None:
    with pytest.raises(NoRegion, match=message):
        region_of(part, person, (150, 200), EXACT)
