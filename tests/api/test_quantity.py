"""lora_api.quantity: Kubernetes quantities and what they amount to."""

from fractions import Fraction

import pytest

from lora_api.quantity import amount_of


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", Fraction(0)),
        ("4", Fraction(4)),
        ("0.5", Fraction(1, 2)),
        ("500m", Fraction(1, 2)),
        ("1u", Fraction(1, 1_000_000)),
        ("1n", Fraction(1, 1_000_000_000)),
        ("2k", Fraction(2000)),
        ("16G", Fraction(16_000_000_000)),
        ("16Gi", Fraction(17_179_869_184)),
        ("1.5Ki", Fraction(1536)),
        ("1E", Fraction(10**18)),
        ("1Ei", Fraction(2**60)),
        ("1e3", Fraction(1000)),
        ("1E3", Fraction(1000)),
    ],
)
def test_a_quantity_amounts_to(text: str, amount: Fraction) -> None:
    assert amount_of(text) == amount


@pytest.mark.parametrize("text", ["", "1K", "1ki", "16 GB", "-1", "1.", ".5", "1e", "1e100", "Gi", "1\n"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity; write one such as"):
        amount_of(text)
