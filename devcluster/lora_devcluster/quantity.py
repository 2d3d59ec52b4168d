"""Kubernetes quantities such as `500m`, `2Gi` or `1`. Used by validation, the scheduler and the kubelet."""

import re
from fractions import Fraction

_FORM = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:([eE][+-]?\d+)|(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei))?")
_UNITS = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "k": Fraction(10**3),
    "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15), "E": Fraction(10**18),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40), "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}  # fmt: skip


def parse(text: str | float) -> Fraction:
    """The amount in its base unit.

    Raises:
        ValueError: the text is no quantity.
    """
    found = _FORM.fullmatch(str(text))
    if not found:
        raise ValueError(f"quantities must match the regular expression '{_FORM.pattern}'; got {text!r}")
    number, exponent, unit = found.groups()
    return Fraction(number + (exponent or "")) * _UNITS.get(unit, Fraction(1))
