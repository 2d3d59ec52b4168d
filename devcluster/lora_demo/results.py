"""What a run left in the bucket, and whether it is whole. Used by the demo and by tests."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_demo.processes import DemoError


@dataclass(frozen=True)
class StoredObject:
    """An object of the bucket."""

    key: str
    size_bytes: int


def list_objects(client: Any, bucket: str, prefix: str) -> list[StoredObject]:
    """Objects below `prefix/`, by key."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    return [StoredObject(item["Key"], item["Size"]) for page in pages for item in page.get("Contents", ())]


def read_manifest(client: Any, bucket: str, key: str) -> dict[str, Any]:
    """A manifest in the bucket."""
    manifest: dict[str, Any] = json.loads(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    return manifest


def download_verified(client: Any, bucket: str, prefix: str, target: Path) -> list[Path]:
    """Every file that the manifests of the run and of its evaluation name, in `target`.

    Raises DemoError when a size or digest does not fit, or the run has not ended.
    """
    manifest = read_manifest(client, bucket, f"{prefix}/manifest.json")
    if not manifest["complete"]:
        raise DemoError(f"the manifest of {prefix} is not that of a finished run")
    evaluation = read_manifest(client, bucket, f"{prefix}/evaluation/manifest.json")
    return [_download(client, bucket, prefix, file, target) for file in (*manifest["files"], *evaluation["files"])]


def _download(client: Any, bucket: str, prefix: str, file: dict[str, Any], target: Path) -> Path:
    body = client.get_object(Bucket=bucket, Key=f"{prefix}/{file['path']}")["Body"].read()
    found = hashlib.sha256(body).hexdigest()
    if found != file["sha256"] or len(body) != file["sizeBytes"]:
        raise DemoError(f"{file['path']} has digest {found}, but the manifest says {file['sha256']}")
    path = target / str(file["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path
