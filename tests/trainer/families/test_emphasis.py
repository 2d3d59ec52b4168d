"""AUTOMATIC1111's syntax of emphasis."""

import pytest

from lora_trainer.families.emphasis import split_emphasis


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("a [faint] word", [("a ", 1.0), ("faint", 1 / 1.1), (" word", 1.0)]),
        ("(strong:1.5)", [("strong", 1.5)]),
        ("(weak: .5 )", [("weak", 0.5)]),
        ("((twice))", [("twice", 1.21)]),
        ("(outer (inner:2) rest)", [("outer ", 1.1), ("inner", 2.2), (" rest", 1.1)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        (r"miku \(singer\), (smile)", [("miku (singer), ", 1.0), ("smile", 1.1)]),
        ("(neighbours)(join)", [("neighboursjoin", 1.1)]),
        ("closes) nothing]", [("closes) nothing]", 1.0)]),
        ("time 10:30, score 1:2)", [("time 10:30, score 1:2)", 1.0)]),
        ("", []),
    ],
)
def test_a_text_is_split_where_its_weight_changes(text: str, pieces: list[tuple[str, float]]) -> None:
    assert [piece.text for piece in split_emphasis(text)] == [piece for piece, _ in pieces]
    assert [piece.weight for piece in split_emphasis(text)] == pytest.approx([weight for _, weight in pieces])


def test_nesting_multiplies_through_an_unbalanced_bracket() -> None:
    pieces = split_emphasis("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).")

    assert [(piece.text, round(piece.weight, 4)) for piece in pieces] == [
        ("a ", 1.0),
        ("house", 1.573),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641),
        (".", 1.1),
    ]
