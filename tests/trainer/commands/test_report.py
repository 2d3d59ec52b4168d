"""`lora report` and `lora compare`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_api import names
from lora_trainer.commands.compare import compare
from lora_trainer.commands.report import report
from tests.support.command import run_command
from tests.support.object_store import faulty_store
from tests.support.pages import read
from tests.support.stored_run import StoredRun, store_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in a folder; read only."""
    folder = tmp_path_factory.mktemp("run")
    store_run(folder, StoredRun(losses=(1.0, 0.8, 0.9), has_grid=False))
    return folder


def links(path: Path) -> list[str]:
    found = [element.attributes["href"] or "" for element in read(path.read_text()).of("a")]
    return [link for link in found if not link.startswith("#")]


def test_a_run_in_a_folder_is_reported_with_links_to_its_files(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.html"

    result = run_command(report, run, "-o", out)

    assert (result.exit_code, result.stdout) == (0, f"{out}: {out.stat().st_size:,} bytes\n")
    assert links(out)
    assert all((out.parent / link).is_file() for link in links(out))


def test_a_run_in_a_bucket_is_reported_without_links(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_store() as store:
        monkeypatch.setenv(names.ENV_CREDENTIALS_DIR, str(store.connection(tmp_path).settings.credentials_dir))
        bucket = store.make_bucket()
        for path in (path for path in run.rglob("*") if path.is_file()):
            store.client.put_object(Bucket=bucket, Key=f"r/{path.relative_to(run)}", Body=path.read_bytes())

        result = run_command(report, f"s3://{bucket}/r", "-o", tmp_path / "r.html", "--endpoint", store.endpoint)

    assert (result.exit_code, result.stderr) == (0, "")
    assert links(tmp_path / "r.html") == []
    assert "Use epoch 1." in read((tmp_path / "r.html").read_text()).text


def test_a_report_can_be_written_to_a_bucket(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_store() as store:
        monkeypatch.setenv(names.ENV_CREDENTIALS_DIR, str(store.connection(tmp_path).settings.credentials_dir))
        bucket = store.make_bucket()

        result = run_command(report, run, "-o", f"s3://{bucket}/runs/r.html", "--endpoint", store.endpoint)
        page = store.client.get_object(Bucket=bucket, Key="runs/r.html")["Body"].read()

    assert (result.exit_code, result.stdout) == (0, f"s3://{bucket}/runs/r.html: {len(page):,} bytes\n")
    assert b"Use epoch 1." in page


def test_a_run_is_found_by_its_training_file(run: Path, tmp_path: Path) -> None:
    result = run_command(report, run / "training.yaml", "-o", tmp_path / "r.html")

    assert (result.exit_code, (tmp_path / "r.html").is_file()) == (0, True)


def test_a_place_without_a_run_is_refused(tmp_path: Path) -> None:
    result = run_command(report, tmp_path, "-o", tmp_path / "r.html")

    assert (result.exit_code, (tmp_path / "r.html").exists()) == (64, False)
    assert "holds no run" in result.stderr


def test_an_endpoint_that_is_no_url_is_refused(tmp_path: Path) -> None:
    result = run_command(report, "s3://b/r", "--endpoint", "minio:9000", "-o", tmp_path / "r.html")

    assert (result.exit_code, "--endpoint is 'minio:9000'" in result.stderr) == (64, True)


def test_runs_are_laid_side_by_side(run: Path, tmp_path: Path) -> None:
    result = run_command(compare, run, run / "training.yaml", "-o", tmp_path / "c.html")

    assert result.exit_code == 0
    assert "2 trainings compared" in (tmp_path / "c.html").read_text()


def test_a_comparison_can_be_written_to_a_bucket(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_store() as store:
        monkeypatch.setenv(names.ENV_CREDENTIALS_DIR, str(store.connection(tmp_path).settings.credentials_dir))
        bucket = store.make_bucket()

        result = run_command(compare, run, run, "-o", f"s3://{bucket}/runs/c.html", "--endpoint", store.endpoint)
        page = store.client.get_object(Bucket=bucket, Key="runs/c.html")["Body"].read()

    assert (result.exit_code, result.stdout) == (0, f"s3://{bucket}/runs/c.html: {len(page):,} bytes\n")
    assert b"2 trainings compared" in page


@pytest.mark.parametrize(("command", "runs"), [(report, 1), (compare, 2)])
def test_a_page_needs_the_name_of_a_file(command: Callable[..., None], runs: int, run: Path) -> None:
    result = run_command(command, *[run] * runs, "-o", "s3://bucket/runs/")

    assert (result.exit_code, "such as s3://bucket/runs/page.html" in result.stderr) == (64, True)


@pytest.mark.parametrize(("out", "better"), [("", "page.html"), (".", "page.html"), ("folder/", "folder/page.html")])
def test_a_page_needs_a_name(out: str, better: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()

    result = run_command(report, run, "-o", out)

    assert (result.exit_code, f"names no file; write {better}" in result.stderr) == (64, True)


def test_hints_name_options_where_there_is_no_spec(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    result = run_command(report, "s3://bucket/run", "-o", "r.html")

    assert result.exit_code == 77
    assert "RUN: no credentials to read s3://bucket/run/manifest.json" in result.stderr
    assert "spec." not in result.stderr and "AWS_ACCESS_KEY_ID" in result.stderr


def test_a_place_without_a_bucket_is_no_file_of_this_machine(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = run_command(compare, run, run, "-o", "s3://c.html")

    assert (result.exit_code, list(tmp_path.iterdir())) == (64, [])
    assert "write s3://bucket/c.html" in result.stderr


def test_one_run_cannot_be_compared(run: Path, tmp_path: Path) -> None:
    result = run_command(compare, run, "-o", tmp_path / "c.html")

    assert (result.exit_code, "names 1; name 2 to 12 runs" in result.stderr) == (64, True)
