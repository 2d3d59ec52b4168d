"""Numbers in words, by Grafana's names of units. Used by `preview`.

Units: packages/grafana-data/src/valueFormats of https://github.com/grafana/grafana.
"""

import math
from collections.abc import Callable

Words = Callable[[float, int | None], str]
_SPANS = ((3600, "hours"), (60, "mins"), (1, "s"), (1e-3, "ms"))
_DIGITS = 3


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """The value with its unit; `decimals` None: as many as say something."""
    return "NaN" if math.isnan(value) else _UNITS[unit](value, decimals)


def _number(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    size = math.floor(math.log10(abs(value))) if value else 0
    text = f"{value:.{max(0, _DIGITS - 1 - size)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _with(suffix: str, factor: float = 1.0) -> Words:
    return lambda value, decimals: _number(value * factor, decimals) + suffix


def _scaled(base: float, units: tuple[str, ...]) -> Words:
    def words(value: float, decimals: int | None) -> str:
        rank = 0
        while abs(value) >= base and rank < len(units) - 1:
            value, rank = value / base, rank + 1
        return _number(value, decimals) + units[rank]

    return words


def _seconds(value: float, decimals: int | None) -> str:
    size, unit = next((span for span in _SPANS if abs(value) >= span[0]), (1, "s"))
    return f"{_number(value / size, decimals)} {unit}"


def _clock(value: float, _decimals: int | None) -> str:
    days, seconds = divmod(int(value), 86400)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{days} d {text}" if days else text


def _scientific(value: float, decimals: int | None) -> str:
    mantissa, exponent = f"{value:.{2 if decimals is None else decimals}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent):+d}"


_UNITS: dict[str, Words] = {
    "none": _number,
    "short": _scaled(1000, ("", " K", " Mil", " Bil")),
    "percentunit": _with("%", 100),
    "s": _seconds,
    "dtdhms": _clock,
    "bytes": _scaled(1024, (" B", " KiB", " MiB", " GiB", " TiB")),
    "Bps": _scaled(1000, (" B/s", " kB/s", " MB/s", " GB/s")),
    "ops": _with(" ops/s"),
    "reqps": _with(" req/s"),
    "sci": _scientific,
}
