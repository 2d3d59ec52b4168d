"""docs/storage-recipes.md: every object in it is accepted by its API, and every store of the issue is there."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from lora_api import load_training, names

PAGE = Path(__file__).parents[2] / "docs" / "storage-recipes.md"
TEXT = PAGE.read_text()
OBJECTS = [
    text for text in re.findall(r"^```yaml\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL) if "\nkind: " in text
]
TRAININGS = [text for text in OBJECTS if f"kind: {names.KIND}\n" in text]
BUILT_IN = [text for text in OBJECTS if re.match(r"apiVersion: v1\n", text)]


def section(title: str) -> str:
    return re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:][titles().index(title)]


def titles() -> list[str]:
    return re.findall(r"^## (.*)$", TEXT, flags=re.MULTILINE)


@pytest.mark.parametrize("store", ["AWS with IRSA", "MinIO", "Ceph RGW", "Cloudflare R2", "Google Cloud Storage"])
def test_every_store_has_a_whole_training(store: str) -> None:
    assert f"kind: {names.KIND}\n" in section(store)


@pytest.mark.parametrize("text", BUILT_IN, ids=lambda text: yaml.safe_load(text)["kind"])
def test_objects_of_kubernetes_are_valid(text: str) -> None:
    for version in ("1.29", "1.37"):
        kubernetes_validate.validate(yaml.safe_load(text), version, strict=True)


def test_no_recipe_holds_a_key() -> None:
    secrets: list[dict[str, Any]] = [yaml.safe_load(text) for text in OBJECTS if "kind: Secret" in text]

    assert secrets == []


def test_credentials_that_trainings_name_are_made_on_the_page() -> None:
    named = {
        storage.credentials_secret_ref.name
        for text in TRAININGS
        for spec in [load_training(text).spec]
        for storage in (spec.storage, spec.base_model.storage, spec.dataset.storage, spec.output.storage)
        if storage is not None and storage.credentials_secret_ref is not None
    }
    made = set(re.findall(r"kubectl create secret generic (\S+) --namespace ml", TEXT))
    claimed = {yaml.safe_load(text)["metadata"]["name"] for text in OBJECTS if "ObjectBucketClaim" in text}

    assert named == made | claimed
