"""What lies in a bucket, looked at with boto3 alone: not with the code that wrote it. Used by `kill_trials`."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3

from lora_demo.seaweed import ObjectStore

_COMPARED_KINDS = ("adapter", "sample", "sheet", "metrics", "grid")
"""What a resumed run must have in common with one that was never interrupted."""


class Bucket:
    """A bucket of a store; everything is fetched whole."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        """Makes the bucket if it is not there."""
        self.name = name
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=store.endpoint,
            aws_access_key_id=store.access_key,
            aws_secret_access_key=store.secret_key,
            region_name="us-east-1",
        )
        if name not in {bucket["Name"] for bucket in self._client.list_buckets()["Buckets"]}:
            self._client.create_bucket(Bucket=name)

    def upload(self, folder: Path, prefix: str) -> None:
        """Copies a folder to keys below `prefix`."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self._client.upload_file(str(file), self.name, f"{prefix}/{file.relative_to(folder).as_posix()}")

    def content(self, prefix: str) -> dict[str, bytes]:
        """Key relative to `prefix` -> content."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{prefix}/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {
            key.removeprefix(f"{prefix}/"): self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
            for key in keys
        }


def problems_of(content: Mapping[str, bytes]) -> list[str]:
    """Whatever a manifest anywhere says that is not so; nothing, where all is well."""
    found = []
    for key, body in content.items():
        if key.rpartition("/")[2] != "manifest.json":
            continue
        # That of the evaluation names files from the run's folder on.
        folder = key.removesuffix("manifest.json").removesuffix("evaluation/")
        for file in json.loads(body)["files"]:
            path = folder + file["path"]
            if path not in content:
                found.append(f"{key} names {path}, which is not there")
            elif hashlib.sha256(content[path]).hexdigest() != file["sha256"]:
                found.append(f"{key} names {path} with another digest")
    return found


def results(content: Mapping[str, bytes]) -> dict[str, str]:
    """Path of every adapter, picture and metrics file of the finished run and of its evaluation -> digest; empty if it
    is not finished."""
    manifests = ("manifest.json", "evaluation/manifest.json")
    if not all(name in content for name in manifests):
        return {}
    files = [file for name in manifests for file in json.loads(content[name])["files"]]
    return {
        file["path"]: hashlib.sha256(content[file["path"]]).hexdigest()
        for file in files
        if file["kind"] in _COMPARED_KINDS and file["path"] in content
    }
