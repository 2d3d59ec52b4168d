"""Draws the dashboards for docs/observability.md as they show four trainings, watched by a real Prometheus.

    python -m benchmarks.dashboard_pictures --work /tmp/dashboards

About five minutes: the demo's stack with its training, one beside it that learns more slowly and is interrupted, one
that fails and one that finds no node. What Prometheus has seen stays in the work folder: after a change of the
dashboards `--again` draws them anew.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lora_demo.__main__ import BASE_MODEL, DATASET, TRAINING
from lora_demo.stack import NAMESPACE, ROOT, SYSTEM_NAMESPACE, Stack, installed_stack, upload
from lora_monitoring.__main__ import dashboards
from lora_monitoring.preview import Answers, Recording, draw
from tests.support.panels import CHOICES, expressions, filled_in
from tests.support.prometheus import Target, query, query_range, scraping

PICTURES = ROOT / "docs" / "images" / "dashboards"
LONGEST_SECONDS = 1800.0
POINTS = 240
LABEL = "lora-operator.io/training"
DEMO, CALM = "zwx-emblem", "zwx-calm"
RUNNING = (DEMO, CALM)
INTERRUPTED_AFTER, ENDED_AFTER = 3, 6
"""Of 8 epochs."""

Spec = dict[str, Any]


def trainings() -> Iterator[Spec]:
    """The demo's training, and three more of the same pictures."""
    yield variant(DEMO)
    calm = {"optimizer": {"name": "adamw8bit", "learningRate": 3e-4, "schedule": {"name": "constant"}}}
    yield variant(CALM, **calm, samples={"prompts": []}, evaluation={"report": False})
    yield variant("zwx-typo", dataset={"uri": "s3://lora/data/trian"})
    yield variant("zwx-large", scheduling={"nodeSelector": {"pool": "large"}})


def variant(name: str, **changes: Any) -> Spec:
    """The demo's training under another name, with some sections replaced."""
    document: Spec = yaml.safe_load(TRAINING.read_text(encoding="utf-8"))
    document["metadata"]["name"] = name
    document["spec"] |= {"output": {"uri": f"s3://lora/runs/{name}", "name": name}, **changes}
    return document


def record(work: Path) -> tuple[float, float]:
    """Lets Prometheus watch the four trainings as long as it takes; when it began and ended."""
    with installed_stack(work / "stack") as stack:
        upload(stack, DATASET, "data")
        upload(stack, BASE_MODEL, "models/tiny-sd")
        begun = time.time()
        stack.kubectl("apply", f"--namespace={NAMESPACE}", "--filename=-", stdin=yaml.safe_dump_all(trainings()))
        with scraping([*operators(stack), *trainers(stack)], work):
            wait(stack, begun + LONGEST_SECONDS)
        return begun, time.time()


def operators(stack: Stack) -> list[Target]:
    """Both replicas, under the labels that the chart's ServiceMonitor gives them."""
    pods = stack.get("pods", f"--namespace={SYSTEM_NAMESPACE}")["items"]
    return [
        Target(
            f"{pod['status']['podIP']}:8080",
            {"namespace": SYSTEM_NAMESPACE, "pod": pod["metadata"]["name"], "job": "lora-operator-metrics"},
        )
        for pod in pods
    ]


def trainers(stack: Stack) -> list[Target]:
    """The pods of the two trainings that run, once they have an address."""
    while True:
        pods = stack.get("pods", f"--namespace={NAMESPACE}", f"--selector={LABEL}")["items"]
        named = {pod["metadata"]["labels"][LABEL]: pod["status"].get("podIP") for pod in pods}
        found = {name: address for name, address in named.items() if address and name in RUNNING}
        if len(found) == len(RUNNING):
            return [Target(f"{ip}:9400", {"namespace": NAMESPACE, "name": name}) for name, ip in found.items()]
        time.sleep(0.5)


def wait(stack: Stack, until: float) -> None:
    """Until both have made most of their epochs; the pod of one is taken away on the way."""
    is_interrupted = False
    while time.time() < until:
        found = stack.get("loratrainings", f"--namespace={NAMESPACE}")["items"]
        epochs = {one["metadata"]["name"]: one.get("status", {}).get("progress", {}).get("epoch", 0) for one in found}
        if epochs[CALM] >= INTERRUPTED_AFTER and not is_interrupted:
            stack.kubectl("delete", "pod", f"--namespace={NAMESPACE}", f"--selector={LABEL}={CALM}", "--wait=false")
            is_interrupted = True
        if all(epochs[name] >= ENDED_AFTER for name in RUNNING):
            return
        time.sleep(2)
    raise SystemExit(f"the trainings made {epochs} epochs in {LONGEST_SECONDS:g} s; see the logs in the work folder")


def ask(url: str, start: float, end: float) -> Recording:
    """Every query of every panel and mark, as Grafana asks it."""
    answers: Answers = {}
    for expression, instant in asked():
        sent, seconds = filled_in(expression), end - start
        answers[expression] = (
            query(url, sent, at=end)
            if instant
            else query_range(url, sent, seconds=seconds, step=seconds / POINTS, end=end)
        )
    return Recording(start, end, answers, {"smoothing": CHOICES["$smoothing"]})


def asked() -> Iterator[tuple[str, bool]]:
    """Each expression, and whether only its newest value is wanted."""
    for page in dashboards().values():
        yield from ((asked.expression, asked.instant) for _, asked in expressions(page))
        yield from ((mark.expression, False) for mark in page.marks)


def main() -> None:
    """Records unless told to draw again, and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where the stack and the data of Prometheus lie")
    parser.add_argument("--again", action="store_true", help="draw what was recorded before")
    given = parser.parse_args()
    work: Path = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    span = work / "span.json"
    if not given.again:
        span.write_text(json.dumps(record(work)))
    with scraping([], work) as url:
        recording = ask(url, *json.loads(span.read_text()))
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, page in dashboards().items():
        draw(page.to_json(), recording).write(PICTURES / f"{name}.webp")


if __name__ == "__main__":
    main()
