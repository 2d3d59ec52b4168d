"""Kubernetes quantities such as `500m`, `16Gi` or `4`: their form, and what they amount to. Used by `fields` and
`cluster_spec`."""

import re
from fractions import Fraction

PATTERN = "^[0-9]+([.][0-9]+)?([eE][0-9]{1,2}|[numkMGTPE]|[KMGTPE]i)?$"
"""Quantities of 0 and more (RE2 and Python)."""
_PARTS = re.compile(r"([0-9.]+)(?:[eE]([0-9]+)|([A-Za-z]+))?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def amount_of(quantity: str) -> Fraction:
    """What a quantity of the form `PATTERN` amounts to, exactly, in its base unit (cores, bytes, pieces).

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/

    Raises:
        ValueError: the text has another form.
    """
    parts = _PARTS.fullmatch(quantity)
    if parts is None or not re.fullmatch(PATTERN, quantity):
        raise ValueError(f"{quantity} is no quantity; write one such as 500m, 4 or 16Gi")
    number, exponent, unit = parts.groups()
    if unit in _BINARY:
        return Fraction(number) * (1 << _BINARY[unit])
    # Annotated, because the power of a fraction may be any number to a type checker.
    unit_amount: Fraction = Fraction(10) ** (int(exponent) if exponent else _DECIMAL.get(unit, 0))
    return Fraction(number) * unit_amount
