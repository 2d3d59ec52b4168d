"""The real trainer in the pods of the laptop-sized cluster, with a bucket of a real object store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from lora_api import LoraTraining, names
from lora_demo.seaweed import ObjectStore
from tests.support import scenario as scenario_settings
from tests.support.scenario import PROFILES, Scenario, open_scenario
from tests.support.tiny_pipeline import write_tiny_pipeline
from tests.support.tiny_run import write_pictures


@asynccontextmanager
async def open_real_scenario(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scenario]:
    """A cluster with the profile `real`; its trainer takes longer than the one that scenarios usually have."""
    monkeypatch.setitem(scenario_settings.IMAGES, "real:*", ("python", "-m", "lora_trainer"))
    monkeypatch.setattr(scenario_settings, "TIMEOUT_SECONDS", 200)
    async with open_scenario(folder) as scenario:
        scenario.profiles_file.write_text(yaml.safe_dump({**PROFILES, "real": {"image": "real:1"}}))
        yield scenario


def write_inputs(folder: Path) -> Path:
    """Base model and pictures."""
    write_tiny_pipeline(folder / "base")
    write_pictures(folder / "train")
    return folder


def document(training: LoraTraining, store: ObjectStore, bucket: str) -> dict[str, Any]:
    """The same training for the cluster, where files lie in a bucket."""
    spec = training.spec.to_document()
    for section, place in (("baseModel", "base"), ("dataset", "train"), ("output", "out")):
        spec[section]["uri"] = f"s3://{bucket}/{place}"
    storage = {"endpoint": store.endpoint, "region": "us-east-1", "credentialsSecretRef": {"name": "s3"}}
    spec |= {"profile": "real", "storage": storage}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "tiny"}, "spec": spec}


def upload(store: ObjectStore, folder: Path, bucket: str) -> Any:
    """A client of the store, in whose bucket the folder's files are now."""
    keys = {"aws_access_key_id": store.access_key, "aws_secret_access_key": store.secret_key}
    client = boto3.client("s3", endpoint_url=store.endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=bucket)
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, path.relative_to(folder).as_posix())
    return client


async def make_secret(scenario: Scenario, store: ObjectStore) -> None:
    keys = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": keys}
    await scenario.send("POST", "/api/v1/namespaces/ml/secrets", body)
