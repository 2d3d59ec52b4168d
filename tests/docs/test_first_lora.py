"""docs/first-lora.md: its commands work as they stand there, from a checkout, one after the other."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from lora_api import load_training
from lora_api.load import parse_yaml
from lora_devcluster import ThreadedCluster
from tests.support.definition import refusals

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "first-lora.md").read_text()
KIND = ROOT / "examples" / "kind"
CHEAP = (
    "--set training.maxSteps=1 --set optimizer.schedule.warmupSteps=0 --set checkpoints.saveState=false "
    '--set "samples.prompts=[{prompt: a zwx emblem, steps: 1}]" '
    '--set "evaluation={bestEpoch: {by: None}, grid: {weights: [1], epochs: [1]}}" --no-serve'
)
"""Options for a run of seconds: one step instead of 368."""


def commands(walk: str) -> list[str]:
    """Every command of the blocks with this mark, with its continued lines."""
    found = re.findall(rf"^<!-- walk: {walk} -->\n```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(found).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given = {**os.environ, "PATH": path, "PWD": str(folder), **environment}
    return subprocess.run(["bash", "-euc", command], cwd=folder, env=given, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that holds what a fresh clone holds, as far as the page asks for it."""
    for name in ("examples", "tinybase", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_the_way_without_a_cluster(checkout: Path) -> None:
    said = {}
    for command in commands("machine"):
        done = run(f"{command} {CHEAP}" if command.startswith("lora run") else command, checkout)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said[" ".join(command.split()[:2])] = done.stdout

    assert list(said) == ["lora validate", "lora plan", "lora run", "ls demo-output/here/adapters", "lora inspect"]
    assert "8 epochs, 368 in all" in said["lora plan"]
    assert "zwx_emblem.safetensors" in said["ls demo-output/here/adapters"]
    assert "zwx_emblem-sheet.png" in said["ls demo-output/here/adapters"]
    assert (checkout / "demo-output" / "here" / "evaluation" / "report.html").is_file()


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    """A cluster with the definition and the demo's training, as `make demo KEEP=1` leaves it but for the status."""
    with ThreadedCluster(tmp_path / "cluster") as cluster:
        first = (
            f"kubectl apply --server-side --filename={ROOT}/crds/loratrainings.yaml",
            "kubectl wait --for=condition=Established crd/loratrainings.lora-operator.io --timeout=60s",
            "kubectl create namespace ml",
            f"kubectl apply --namespace=ml --filename={ROOT}/examples/demo.yaml",
        )
        for command in first:
            done = run(command, tmp_path, KUBECONFIG=str(cluster.kubeconfig))
            assert done.returncode == 0, done.stderr
        yield Path(cluster.kubeconfig)


def test_the_way_on_the_laptop_sized_cluster(checkout: Path, kubeconfig: Path) -> None:
    done = {command: run(command, checkout, KUBECONFIG=str(kubeconfig)) for command in commands("cluster")}

    assert len(done) == 6
    assert {command: ran.stderr for command, ran in done.items() if ran.returncode} == {}
    *_, again, wrong = done.values()
    assert again.stdout.startswith("loratraining.lora-operator.io/zwx-emblem ")
    assert "spec.training.epochs" in wrong.stderr


def test_the_setup_is_a_target_of_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    assert commands("setup") == ["make setup", "source .venv/bin/activate", "source .venv/bin/activate"]
    assert set(re.findall(r"^make ([\w-]+)", PAGE, flags=re.MULTILINE)) <= targets


def test_the_volumes_for_kind_are_valid_and_fit_together() -> None:
    documents = list(yaml.safe_load_all((KIND / "volumes.yaml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, "1.29", strict=True)
    by_kind = {
        kind: {document["metadata"]["name"]: document["spec"] for document in documents if document["kind"] == kind}
        for kind in ("PersistentVolume", "PersistentVolumeClaim")
    }

    assert by_kind["PersistentVolume"].keys() == by_kind["PersistentVolumeClaim"].keys()
    for name, claim in by_kind["PersistentVolumeClaim"].items():
        volume = by_kind["PersistentVolume"][name]
        assert (claim["storageClassName"], claim["accessModes"]) == (volume["storageClassName"], volume["accessModes"])


def test_the_training_for_kind_is_valid_and_its_places_exist() -> None:
    text = (KIND / "training.yaml").read_text()
    spec = load_training(text).spec
    (mount,) = yaml.safe_load((KIND / "cluster.yaml").read_text())["nodes"][0]["extraMounts"]
    volumes = {
        document["metadata"]["name"]: document["spec"]["hostPath"]["path"]
        for document in yaml.safe_load_all((KIND / "volumes.yaml").read_text())
        if document["kind"] == "PersistentVolume"
    }

    assert refusals(parse_yaml(text)[0]) == []
    assert mount == {"hostPath": ".", "containerPath": volumes["checkout"]}
    for uri in (spec.base_model.uri, spec.dataset.uri):
        assert uri is not None
        assert (ROOT / uri.removeprefix("pvc://checkout/")).is_dir()
    assert spec.output.uri.startswith("pvc://results/")
    assert f"ls {volumes['results'].removeprefix('/checkout/')}/" in PAGE


def test_kind_loads_the_images_that_were_built() -> None:
    walk = commands("kind")
    built = re.findall(r"--tag (\S+)", "\n".join(walk))

    assert f"kind load docker-image --name lora {' '.join(built)}" in walk
