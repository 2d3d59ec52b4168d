"""The whole demo, as `make demo` runs it: from an empty machine to a LoRA in the bucket."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lora_demo import __main__ as lora_demo_main
from lora_monitoring.__main__ import dashboards
from tests.support.panels import Answer, ask
from tests.support.prometheus import Target, check_metrics, query_until, scraping

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 1
TRAINER_PORT = 9400


@dataclass(frozen=True)
class FinishedDemo:
    """What a run of the demo said and left behind."""

    said: str
    output: Path
    exit_code: int
    trainer_metrics: str
    operator_metrics: str
    scraped: dict[str, list[dict[str, Any]]]
    answers: list[Answer]
    """What the panels of the dashboards show of it."""


def kubectl_json(directory: Path, *arguments: str) -> Any:
    command = [str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", str(directory / "kubeconfig"), "get"]
    done = subprocess.run([*command, *arguments, "-o", "json"], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"items": []}


def running_trainer(directory: Path, demo: subprocess.Popen[str]) -> str:
    """Address of the trainer's pod once it makes steps."""
    while demo.poll() is None:
        for pod in kubectl_json(directory, "pods", "--namespace=ml")["items"]:
            address = f"{pod['status'].get('podIP')}:{TRAINER_PORT}"
            if pod["status"]["phase"] == "Running" and "lora_trainer_step " in fetch(address):
                return address
        time.sleep(0.5)
    raise AssertionError(f"the demo ended before a trainer ran: {demo.communicate()[0]}")


def operator_address(directory: Path) -> str:
    lease = kubectl_json(directory, "lease", "lora-operator", "--namespace=lora-system")
    leader = lease["spec"]["holderIdentity"].partition("_")[0]
    return f"{kubectl_json(directory, 'pod', leader, '--namespace=lora-system')['status']['podIP']}:8080"


def fetch(address: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def until_it_waits(demo: subprocess.Popen[str]) -> str:
    """What the demo prints until it waits for the user."""
    assert demo.stdout
    said = ""
    for line in demo.stdout:
        said += line
        if "Ctrl-C ends it all" in line:
            break
    return said


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedDemo]:
    directory, output = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("results") / "output"
    command = [sys.executable, "-m", "lora_demo", "--keep", f"--epochs={EPOCHS}"]
    process = subprocess.Popen(
        [*command, f"--directory={directory}", f"--output={output}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        trainer, operator = running_trainer(directory, process), operator_address(directory)
        prometheus_dir = tmp_path_factory.mktemp("prometheus")
        begun = time.monotonic()
        targets = (Target(trainer, {"namespace": "ml", "name": "zwx-emblem"}), Target(operator, {"pod": "leader"}))
        with scraping(targets, prometheus_dir) as url:
            scraped = {
                "up": query_until(url, "up == 1", results=2),
                "step": query_until(url, "lora_trainer_step", results=1),
                "phase": query_until(url, "lora_operator_trainings", results=1),
            }
            trainer_metrics, operator_metrics = fetch(trainer), fetch(operator)
            said = until_it_waits(process)
            seconds = time.monotonic() - begun
            answers = [answer for page in dashboards().values() for answer in ask(page, url, seconds=seconds)]
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=60)[0]
        yield FinishedDemo(said, output, process.returncode, trainer_metrics, operator_metrics, scraped, answers)
    finally:
        process.kill()


def test_the_demo_ends_well(demo: FinishedDemo) -> None:
    assert demo.exit_code == 0, demo.said


def test_the_table_shows_epochs_loss_and_success(demo: FinishedDemo) -> None:
    assert re.search(rf"zwx-emblem +Succeeded +{EPOCHS}/{EPOCHS} +100% +0\.\d+", demo.said), demo.said


def test_there_is_one_adapter_and_one_sheet_an_epoch_and_the_final_ones(demo: FinishedDemo) -> None:
    adapters = sorted(path.name for path in (demo.output / "adapters").iterdir())
    sheets = sorted(path.name for path in (demo.output / "samples").glob("*sheet*"))

    numbered = [f"zwx_emblem-{epoch:06d}.safetensors" for epoch in range(1, EPOCHS + 1)]
    assert adapters == [*numbered, "zwx_emblem-best.safetensors", "zwx_emblem.safetensors"]
    assert len(sheets) >= EPOCHS


def test_the_last_sheet_has_a_column_an_epoch(demo: FinishedDemo) -> None:
    sheet = sorted((demo.output / "samples").glob("*sheet*"))[-1]

    with Image.open(sheet) as picture:
        assert picture.width >= (EPOCHS + 1) * 128
        assert picture.height >= 4 * 128


def test_the_best_epoch_is_shown_and_kept(demo: FinishedDemo) -> None:
    folder = demo.output / "adapters"
    best = f"zwx_emblem-{EPOCHS:06d}.safetensors"

    assert re.search(rf"zwx-emblem +Succeeded .* 0s +{EPOCHS}\b", demo.said), demo.said
    assert (folder / "zwx_emblem-best.safetensors").read_bytes() == (folder / best).read_bytes()


def test_grid_and_report_lie_there(demo: FinishedDemo) -> None:
    with Image.open(demo.output / "evaluation" / "grid.png") as picture:
        assert picture.width > 3 * 128
    assert "zwx_emblem" in (demo.output / "evaluation" / "report.html").read_text()


def test_the_metrics_of_the_run_outlive_its_pod(demo: FinishedDemo) -> None:
    assert re.search(r'lora_training_epoch\{.*name="zwx-emblem".*\} ' + f"{EPOCHS}\\.0", demo.said), demo.said


@pytest.mark.parametrize("side", ["trainer_metrics", "operator_metrics"])
def test_promtool_has_nothing_to_say(demo: FinishedDemo, side: str) -> None:
    text = getattr(demo, side)

    assert "lora_" in text
    assert check_metrics(text) == ""


def test_a_real_prometheus_scrapes_trainer_and_operator(demo: FinishedDemo) -> None:
    assert len(demo.scraped["up"]) == 2
    assert demo.scraped["step"]
    assert demo.scraped["phase"]


def test_every_panel_of_the_dashboards_shows_something(demo: FinishedDemo) -> None:
    print("| dashboard | panel | series | query |", "|---|---|---|---|", *demo.answers, sep="\n")

    assert len({answer.dashboard for answer in demo.answers}) == 3
    assert [f"{answer.dashboard}: {answer.panel}" for answer in demo.answers if answer.series == 0] == []


def test_the_same_file_trained_here_gives_the_same_bytes(demo: FinishedDemo, tmp_path: Path) -> None:
    places = {
        "baseModel.uri": ROOT / "tinybase" / "model",
        "dataset.uri": ROOT / "examples" / "demo" / "data" / "train",
        "output.uri": tmp_path / "run",
    }
    settings = [f"--set={path}=file://{place}" for path, place in places.items()]
    # Not a byte of the adapter depends on what is drawn of it afterwards.
    settings += ["--set=evaluation.grid=null", "--set=evaluation.report=false"]
    lora = Path(sys.executable).parent / "lora"

    subprocess.run(
        [lora, "run", "examples/demo.yaml", *settings, f"--set=training.epochs={EPOCHS}"], cwd=ROOT, check=True
    )

    name = "zwx_emblem.safetensors"
    assert (tmp_path / "run" / "adapters" / name).read_bytes() == (demo.output / "adapters" / name).read_bytes()


def test_a_user_who_is_quicker_than_the_last_line_ends_the_demo_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lora_demo_main.console, "print", interrupted)

    lora_demo_main._wait_for_the_user(SimpleNamespace(kubeconfig="somewhere"))  # type: ignore[arg-type]
