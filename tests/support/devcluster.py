"""Objects and waits for tests of the laptop-sized cluster."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from lora_devcluster.store import Change, Store

T = TypeVar("T")
Manifest = dict[str, Any]
TIMEOUT_SECONDS = 60


async def until(store: Store, look: Callable[[], T | None], seconds: float = TIMEOUT_SECONDS) -> T:
    """What `look` finds, as soon as it finds something; it looks after every write."""
    changed = asyncio.Event()

    def notice(_change: Change) -> None:
        changed.set()

    unsubscribe = store.subscribe(notice)
    try:
        async with asyncio.timeout(seconds):
            while not (found := look()):
                changed.clear()
                await changed.wait()
            return found
    finally:
        unsubscribe()


def container(*command: str, name: str = "main", image: str = "busybox:1", **more: Any) -> Manifest:
    return {"name": name, "image": image, **({"command": list(command)} if command else {}), **more}


def pod(*containers: Manifest, name: str = "p", **spec: Any) -> Manifest:
    body = {"restartPolicy": "Never", "containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def job(*containers: Manifest, name: str = "j", pod_spec: Manifest | None = None, **spec: Any) -> Manifest:
    template = {"restartPolicy": "Never", "containers": list(containers) or [container("true")], **(pod_spec or {})}
    body = {"template": {"spec": template}, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": body}


def definition(spec: Manifest | None = None, status: Manifest | None = None, **version: Any) -> Manifest:
    """A CustomResourceDefinition of widgets whose `spec` and `status` have the given schemas."""
    properties = {"spec": spec or {"type": "object"}, "status": status or {"type": "object"}}
    served = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["toys"]},
            "versions": [{**served, **version}],
        },
    }


def widget(name: str = "w", **fields: Any) -> Manifest:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, **fields}
