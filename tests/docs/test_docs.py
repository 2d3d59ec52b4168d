"""docs/: links lead somewhere, YAML is valid, and tables name what the code has."""

import ast
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from lora_api import OUTCOMES, LoraTrainingSpec, load_training
from lora_operator.changes import WARNED_ABOUT
from lora_operator.metrics import Metrics
from lora_operator.profiles import load_profiles
from lora_trainer.metrics import TrainingMetrics
from tests.support.chart import only
from tests.support.definition import refusals

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("charts/**/*.md"), *ROOT.glob("[!.]*/README.md")]
)
HAND_WRITTEN = [page for page in PAGES if page.parent == ROOT / "docs" or page.name == "README.md"]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings make."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        path, _, fragment = link.partition("#")
        target = (page.parent / path) if path else page
        if "://" in link:
            continue
        if not target.exists() or (fragment and fragment not in anchors(target)):
            dead.append(link)

    assert dead == []


def yaml_blocks() -> list[tuple[str, str]]:
    return [(str(page.relative_to(ROOT)), block) for page in HAND_WRITTEN for block in blocks(page, "ya?ml")]


def test_every_training_in_the_pages_is_valid() -> None:
    trainings = [(page, text) for page, text in yaml_blocks() if re.search("^kind: LoraTraining", text, re.MULTILINE)]

    assert trainings
    for page, text in trainings:
        load_training(text)
        assert refusals(yaml.safe_load(text)) == [], page


def test_values_in_the_pages_install_and_their_profiles_can_be_read() -> None:
    values = [yaml.safe_load(text) for page, text in yaml_blocks() if "profiles:" in text]

    assert values
    for content in values:
        assert content["profiles"].keys() <= load_profiles(only("ConfigMap", content)["data"]["profiles.yaml"]).keys()


def names_in(page: str, pattern: str) -> set[str]:
    return set(re.findall(pattern, (ROOT / "docs" / page).read_text()))


def exported(registry: CollectorRegistry) -> set[str]:
    """Names as a scrape shows them, without the parts of a histogram."""
    return {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}


def test_the_metrics_page_lists_exactly_what_is_exported() -> None:
    trainer = CollectorRegistry()
    TrainingMetrics(trainer)
    listed = names_in("metrics.md", r"\n\| `(\w+)` \|")

    assert listed == exported(trainer) | exported(Metrics().registry)


REASON_OF = {"Finding": 1, "Acceptance": 1, "_failure": 0, "Failure": 0}
"""Which argument of these calls is a reason."""


def reasons_in_code() -> set[str]:
    """Reasons of conditions and failures that the operator can give: literals, and constants by their name."""
    trees = [ast.parse(module.read_text()) for module in (ROOT / "operator" / "lora_operator").glob("*.py")]
    constants = {
        target.id: node.value.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    given = [reason_given(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = {constants.get(node.id) for node in given if isinstance(node, ast.Name)}
    literal = {node.value for node in given if isinstance(node, ast.Constant)}
    warned = {reason for reasons in WARNED_ABOUT.values() for reason in reasons}
    return {reason for reason in named | literal if isinstance(reason, str)} | warned


def reason_given(call: ast.Call) -> ast.expr | None:
    place = REASON_OF.get(call.func.id) if isinstance(call.func, ast.Name) else None
    if place is None:
        return None
    by_name = next((keyword.value for keyword in call.keywords if keyword.arg == "reason"), None)
    return by_name or (call.args[place] if len(call.args) > place else None)


def test_the_page_of_errors_explains_every_reason() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    reasons = reasons_in_code() | {outcome.reason for outcome in OUTCOMES} | {"AlreadyTrained"}

    assert len(reasons) > 50
    assert sorted(reason for reason in reasons if not re.search(rf"\b{reason}\b", text)) == []


def model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := model_in(part))), None)


def is_field(path: str) -> bool:
    model: type[BaseModel] | None = LoraTrainingSpec
    for name in path.split("."):
        fields = {field.alias: field for field in model.model_fields.values()} if model else {}
        if name.removesuffix("[]") not in fields:
            return False
        model = model_in(fields[name.removesuffix("[]")].annotation)
    return True


def test_the_page_for_movers_names_fields_that_there_are() -> None:
    rows = [line.split("|") for line in (ROOT / "docs" / "kohya.md").read_text().splitlines() if line.startswith("| ")]
    fields = {field for row in rows for field in re.findall(r"`([\w.\[\]]+)`", row[2])}

    assert len(fields) > 60
    assert sorted(field for field in fields if not is_field(field)) == []
