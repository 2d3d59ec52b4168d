"""The table of a profile's fields in the chart's README, from the operator's own model. Used by `__main__`."""

import inspect

from pydantic.fields import FieldInfo

from lora_chart.values_table import render_rows
from lora_operator.profiles import Profile

IMAGE = "image"
"""Its default is the chart's."""


def render_profile_table() -> str:
    """One row for each field, in the order of the model."""
    rows = [
        (f"`{field.alias}`", _default(name, field), inspect.cleandoc(field.description or "").replace("\n", " "))
        for name, field in Profile.model_fields.items()
    ]
    return render_rows(("Field", "Default", "Description"), rows)


def _default(name: str, field: FieldInfo) -> str:
    if name == IMAGE:
        return "`trainer.image`"
    if isinstance(field.default, str | int):
        return f"`{field.default}`"
    return ""
