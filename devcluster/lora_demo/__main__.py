"""`python -m lora_demo`: the whole path on this machine, shown as a user sees it."""

import contextlib
import shutil
import signal
import time
import urllib.request
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lora_demo.processes import DemoError
from lora_demo.results import download_verified, list_objects
from lora_demo.stack import BUCKET, NAMESPACE, ROOT, Stack, installed_stack, operator_metrics_url, upload

TRAINING = ROOT / "examples" / "demo.yaml"
DATASET = ROOT / "examples" / "demo" / "data"
BASE_MODEL = ROOT / "tinybase" / "model"
TIMEOUT_SECONDS = 1200
console = Console(highlight=False, soft_wrap=True)


def main(
    keep: Annotated[bool, typer.Option(help="Leave everything running until Ctrl-C.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Train this many epochs instead of the file's.")] = None,
    output: Annotated[Path, typer.Option(help="Where the results are copied to.")] = Path("demo-output"),
    directory: Annotated[Path, typer.Option(help="Where state and logs lie.")] = Path(".devcluster"),
) -> None:
    """Starts a laptop-sized cluster, an S3 server and the operator, trains one LoRA, and shows the result."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        started = time.monotonic()
        shutil.rmtree(directory, ignore_errors=True)
        with installed_stack(directory.resolve()) as stack:
            _say(f"cluster, object store and operator are up after {time.monotonic() - started:.0f} s")
            train(stack, epochs)
            show_results(stack, output.resolve())
            _say(f"the whole demo took {time.monotonic() - started:.0f} s")
            if keep:
                _wait_for_the_user(stack)
    except DemoError as error:
        console.print(f"[red]demo failed:[/] {error}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("stopped; everything that was started has been ended")
        raise typer.Exit(130) from None


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    console.print(f"[green]●[/] {text}")


def _show_command(stack: Stack, *arguments: str | Path) -> None:
    console.print(f"\n[bold]$ kubectl {' '.join(str(argument) for argument in arguments)}[/]")
    console.print(stack.kubectl(*arguments).rstrip(), markup=False)


def train(stack: Stack, epochs: int | None = None) -> None:
    """Uploads model and pictures, applies the training and follows it to its end."""
    count = upload(stack, DATASET, "data") + upload(stack, BASE_MODEL, "models/tiny-sd")
    _say(f"{count} files of base model and dataset are in s3://{BUCKET}")
    document = yaml.safe_load(TRAINING.read_text(encoding="utf-8"))
    path = TRAINING.relative_to(ROOT) if TRAINING.is_relative_to(Path.cwd()) else TRAINING
    if epochs is not None:
        document["spec"]["training"]["epochs"] = epochs
        path = stack.directory / "training.yaml"
        path.write_text(yaml.safe_dump(document))
    _show_command(stack, "apply", f"--namespace={NAMESPACE}", f"--filename={path}")
    training = _follow(stack, document["metadata"]["name"])
    conditions = {condition["type"]: condition for condition in training["status"]["conditions"]}
    if conditions["Succeeded"]["status"] != "True":
        raise DemoError(
            f"the training failed: {conditions['Succeeded']['reason']}: {training['status'].get('failure')}"
        )


def _follow(stack: Stack, name: str) -> dict[str, Any]:
    """The finished object; shows live progress on the way."""
    columns = (TextColumn("  {task.description}"), BarColumn(40), TextColumn("{task.fields[words]}"))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Pending", total=100, words="")
        last = ""
        while time.monotonic() < deadline:
            stack.cluster.check_alive()
            training: dict[str, Any] = stack.get("loratraining", name, f"--namespace={NAMESPACE}")
            status = training.get("status", {})
            if _is_finished(status):
                return training
            summary = status.get("summary", {})
            words = "  ".join(
                f"{label} {summary[key]}"
                for label, key in (("epoch", "epoch"), ("step", "step"), ("loss", "loss"), ("left", "left"))
                if summary.get(key)
            )
            percent = status.get("progress", {}).get("percent", 0)
            bar.update(task, description=_doing(status), completed=percent, words=words)
            if not console.is_terminal and words != last:
                console.print(f"  {_doing(status)}  {words}")
                last = words
            time.sleep(1)
    raise DemoError(f"the training did not end within {TIMEOUT_SECONDS} s; see `kubectl describe lt {name}`")


def _is_finished(status: dict[str, Any]) -> bool:
    return any(c["type"] == "Finished" and c["status"] == "True" for c in status.get("conditions", ()))


def _doing(status: dict[str, Any]) -> str:
    running = next((c for c in status.get("conditions", ()) if c["type"] == "Running"), None)
    reason: str = running["reason"] if running and running["status"] == "True" else status.get("phase", "Pending")
    return reason


def show_results(stack: Stack, output: Path) -> None:
    """Prints what a user looks at: the object, events, bucket and metrics, and where sheet, grid and report lie."""
    _show_command(stack, "get", "lt", f"--namespace={NAMESPACE}")
    _show_command(
        stack, "get", "events", f"--namespace={NAMESPACE}", "--field-selector=involvedObject.kind=LoraTraining"
    )
    document = yaml.safe_load(TRAINING.read_text(encoding="utf-8"))
    prefix = document["spec"]["output"]["uri"].removeprefix(f"s3://{BUCKET}/")
    console.print(f"\n[bold]s3://{BUCKET}/{prefix}[/]")
    for item in list_objects(stack.s3(), BUCKET, prefix):
        console.print(f"  {item.size_bytes:>9,}  {item.key.removeprefix(prefix + '/')}", markup=False)
    console.print("\n[bold]metrics of the run[/]")
    with urllib.request.urlopen(operator_metrics_url(stack), timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("lora_training_"):
                console.print(f"  {line}", markup=False)
    shutil.rmtree(output, ignore_errors=True)
    paths = download_verified(stack.s3(), BUCKET, prefix, output)
    _say(f"{len(paths)} files copied to {output}; all digests fit the manifests")
    sheets = sorted(path for path in paths if "sheet" in path.name)
    for words, found in (
        ("sample sheet (rows prompts, columns epochs)", sheets[-1:]),
        ("grid (rows epochs, columns weights)", [path for path in paths if path.name == "grid.png"]),
        ("best adapter", [path for path in paths if path.name.endswith("-best.safetensors")]),
        ("report, for a browser", [path for path in paths if path.name == "report.html"]),
    ):
        for path in found:
            _say(f"{words}: {path}")


def _wait_for_the_user(stack: Stack) -> None:
    # The print belongs inside: whoever reads it may be quicker than its end.
    with contextlib.suppress(KeyboardInterrupt):
        console.print(f"\n[bold]export KUBECONFIG={stack.kubeconfig}[/]\nCtrl-C ends it all.")
        signal.pause()


if __name__ == "__main__":
    typer.run(main)
