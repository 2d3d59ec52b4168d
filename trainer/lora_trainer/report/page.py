"""HTML from the templates in `page/`: every value escaped, every word in both languages, nothing from elsewhere.

Used by `writing`. A policy in the page lets run only its own script and style, told by their digests.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lora_trainer.report.charts import label
from lora_trainer.report.words import ENGLISH, TRADITIONAL_CHINESE

_PACKAGE = "lora_trainer.report"
_UNITS = ("B", "kB", "MB", "GB", "TB")


def render(template: str, values: Mapping[str, Any]) -> str:
    """The page that `template` makes of `values`."""
    script, style = _asset("report.js"), _asset("report.css")
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "t": in_both_languages,
        "spoken": spoken,
        "policy": _policy(script, style),
        "script": Markup(script),
        "style": Markup(style),
        "title_in": {"en": ENGLISH, "zh": TRADITIONAL_CHINESE},
    }
    environment.filters |= {"short": label, "size": size, "percent": _percent}
    return environment.get_template(template).render(values)


def in_both_languages(key: str, **values: object) -> Markup:
    """The words of `key` in both languages, of which the style sheet shows one; values are escaped."""
    english, chinese = (Markup(words[key]).format(**values) for words in (ENGLISH, TRADITIONAL_CHINESE))
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-Hant">{}</span>').format(
        english, chinese
    )


def spoken(attribute: str, key: str, **values: object) -> Markup:
    """An attribute such as `aria-label`, which the script changes with the language."""
    english, chinese = (Markup(words[key]).format(**values) for words in (ENGLISH, TRADITIONAL_CHINESE))
    return Markup('{0}="{1}" data-spoken="{0}" data-en="{1}" data-zh="{2}"').format(attribute, english, chinese)


def size(count: int) -> str:
    """A number of bytes for people: 37.9 MB."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


def _percent(value: float) -> str:
    return f"{value:.1f} %"


def _policy(script: str, style: str) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style))
    script_digest, style_digest = digests
    return (
        f"default-src 'none'; img-src data:; script-src 'sha256-{script_digest}'; "
        f"style-src 'sha256-{style_digest}'; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return resources.files(_PACKAGE).joinpath("page", name).read_text(encoding="utf-8")
