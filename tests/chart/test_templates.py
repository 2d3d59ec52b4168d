"""charts/lora-operator/templates: no file is dead, and each makes one kind of object."""

import re
from collections import defaultdict

import pytest
import yaml

from tests.support.chart import CHART, NAMESPACE, example, run_helm

TEMPLATES = CHART / "templates"


@pytest.fixture(scope="module")
def kinds() -> dict[str, set[str]]:
    """The kinds that each template makes, with the values of two examples."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in ("production", "namespaced"):
        text = run_helm("template", "lora", str(CHART), "--namespace", NAMESPACE, values=example(name)).stdout
        for path, document in re.findall(
            r"^# Source: lora-operator/templates/(\S+)\n(.*?)(?=^---|\Z)", text, re.M | re.S
        ):
            if content := yaml.load(document, Loader=yaml.CSafeLoader):
                found[path].add(content["kind"])
    return found


def test_every_template_is_rendered_by_an_example(kinds: dict[str, set[str]]) -> None:
    files = {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.yaml")}

    assert set(kinds) == files


def test_a_template_makes_objects_of_the_kind_that_it_is_named_for(kinds: dict[str, set[str]]) -> None:
    names = {path: path.rpartition("/")[2].removesuffix(".yaml").split("-")[0] for path in kinds}
    kind_of = {"crd": "customresourcedefinition"}

    assert {path: {kind.lower() for kind in found} for path, found in kinds.items()} == {
        path: {kind_of.get(name, name)} for path, name in names.items()
    }
