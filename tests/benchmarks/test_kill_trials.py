"""benchmarks/kill_trials.py: a few trials of the real thing, and that what must be found is found."""

import random
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest

from benchmarks import kill_trials
from benchmarks.bucket import problems_of
from benchmarks.forked_training import Ended, Event, Stretch, stretches
from benchmarks.kill_trials import Laboratory, Reference, Trial, draw_moment, table
from lora_demo.seaweed import seaweed


def told(*events: tuple[str, str]) -> list[Event]:
    return [Event(float(second), name, value) for second, (name, value) in enumerate(events)]


def ended(events: Sequence[Event], hit: str | None = "stepping") -> Ended:
    return Ended(events, -signal.SIGKILL, hit, 0.0)


@dataclass(frozen=True)
class Prepared:
    """A laboratory and the undisturbed run of one variant."""

    laboratory: Laboratory
    references: dict[str, Reference]

    def trials(self, indices: Iterable[int], *, number: signal.Signals) -> list[Trial]:
        one = partial(self.laboratory.trial, seed=1, number=number, references=self.references)
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, indices))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    folder = tmp_path_factory.mktemp("trials")
    with seaweed(folder / "store", folder) as store:
        laboratory = Laboratory(store, folder)
        yield Prepared(laboratory, {"workers": laboratory.reference("workers")})


def test_a_killed_training_ends_as_if_it_had_never_been_killed(prepared: Prepared) -> None:
    trials = prepared.trials((0,), number=signal.SIGKILL)

    assert [trial.problems for trial in trials] == [[]]
    assert any(trial.hits for trial in trials)


def test_a_training_that_is_told_to_stop_loses_no_step(prepared: Prepared) -> None:
    trials = prepared.trials((100,), number=signal.SIGTERM)

    assert [trial.problems for trial in trials] == [[]]
    assert any(trial.hits for trial in trials)


def test_a_manifest_that_names_what_is_not_there_is_found() -> None:
    manifest = b'{"files": [{"path": "a.bin", "sha256": "00"}, {"path": "b.bin", "sha256": "00"}]}'

    problems = problems_of({"state/step-1/manifest.json": manifest, "state/step-1/b.bin": b"other"})

    assert problems == [
        "state/step-1/manifest.json names state/step-1/a.bin, which is not there",
        "state/step-1/manifest.json names state/step-1/b.bin with another digest",
    ]


def test_an_upload_counts_before_what_it_runs_beside() -> None:
    events = told(
        ("reason", "Training"), ("put", "a"), ("reason", "Sampling"), ("stored", "a"), ("reason", "Completed")
    )

    assert stretches(events) == [
        Stretch("stepping", 1.0),
        Stretch("uploading", 2.0),
        Stretch("sampling", 1.0),
        Stretch("Completed", 0.0),
    ]


def test_lost_steps_are_counted_from_the_last_start_that_trained() -> None:
    first = ended(told(("reason", "Training"), ("step", "1"), ("step", "2"), ("step", "3")))
    without_a_step = ended(told(("reason", "Downloading")), hit="fetching")
    last = ended(told(("resumed", "2"), ("reason", "Training"), ("step", "3")), hit=None)

    assert Trial("one", starts=[first, without_a_step, last]).lost_steps == [1]


def test_moments_come_from_every_stage_and_lie_within_it() -> None:
    reference = Reference({}, [Stretch("stepping", 2.0), Stretch("saving", 1.0), Stretch("stepping", 3.0)], steps=6)

    moments = [draw_moment(random.Random(seed), reference, share_left=1.0) for seed in range(40)]

    assert {(moment.stage, moment.occurrence) for moment in moments} == {
        ("stepping", 1),
        ("stepping", 2),
        ("saving", 1),
    }
    assert all(0 <= moment.delay_seconds <= 3 for moment in moments)


def test_a_mismatch_is_in_the_table_and_in_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Trial("0001-plain", starts=[ended([])], problems=["evaluation/metrics.jsonl is not that of the run"])
    monkeypatch.setattr(kill_trials, "run_trials", lambda *_, **__: [bad])

    code = kill_trials.main(["--trials", "1"])

    assert code == 1
    assert "mismatches: 1 (0001-plain)" in capsys.readouterr().out
    assert "mismatches: 0" in table([Trial("0000-plain")], signal.SIGKILL, 1.0)
