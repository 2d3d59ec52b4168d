"""Every alert fires when it should, keeps quiet when it should, and has a page that says what to do."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_monitoring.alerts import GROUPS
from lora_monitoring.rules import RUNBOOKS, Alert
from tests.support.prometheus import program
from tests.support.promtool import ALERTS, Case, Firing, judge

ROOT = Path(__file__).parents[2]
KNOWN = {alert.name: alert for group in GROUPS for alert in group.alerts}
WHO = 'namespace="ml", name="hina"'
RUNNING = {f'lora_training_state{{{WHO}, phase="Running", reason="Training"}}': "1x800"}
ENDED = {f'lora_training_state{{{WHO}, phase="Succeeded", reason="Completed"}}': "1x800"}


def state(phase: str, reason: str) -> dict[str, str]:
    return {f'lora_training_state{{{WHO}, phase="{phase}", reason="{reason}"}}': "1x800"}


def ended_pods(reason: str, values: str) -> dict[str, str]:
    return {f'lora_training_ended_pods{{{WHO}, reason="{reason}"}}': values}


def of_training(name: str, values: str) -> dict[str, str]:
    return {f"{name}{{{WHO}}}": values}


def leader(pod: str, release: str = "lora") -> str:
    """Whether this replica leads; the labels are those of the scrape."""
    return f'lora_operator_leader{{namespace="{release}", job="lora-operator-metrics", pod="{pod}"}}'


DOWN = "No operator looks after LoraTrainings"


@dataclass(frozen=True)
class Situation:
    """What is exported, and when it is looked at."""

    alert: str
    series: dict[str, str]
    minutes: int
    summary: str = ""
    """What the alert says; nothing: it keeps quiet."""
    value: str = ""
    """The value as the text shows it."""
    reason: str = ""
    release: str = ""
    """Namespace of the operator."""


LOSSES = of_training("lora_training_loss", "0.10x30 0.09x30 0.25x200")
FIRING = [
    Situation(
        "LoraTrainingStalled", state("Starting", "Stalled"), 2, "LoraTraining ml/hina gives no sign of life", "1"
    ),
    Situation(
        "LoraTrainingFailed",
        state("Failed", "OutOfMemory") | of_training("lora_training_completion_timestamp_seconds", "600x800"),
        20,
        "LoraTraining ml/hina failed: OutOfMemory",
        reason="OutOfMemory",
    ),
    Situation(
        "LoraTrainingDiverging", LOSSES | RUNNING, 120, "LoraTraining ml/hina: the loss is twice what it was", "250m"
    ),
    Situation(
        "LoraTrainingOverfitting",
        of_training("lora_training_overfit_epoch", "_x5 8x20") | RUNNING,
        10,
        "LoraTraining ml/hina over-fits since epoch 8",
        "8",
    ),
    Situation(
        "LoraTrainingOutOfMemory",
        ended_pods("HostOutOfMemory", "1x5 2x20") | state("Starting", "LoadingModel"),
        10,
        "LoraTraining ml/hina has run out of memory 2 times",
        "2",
    ),
    Situation(
        "LoraTrainingPending",
        state("Pending", "Unschedulable"),
        31,
        "LoraTraining ml/hina has not begun for 30 minutes: Unschedulable",
        reason="Unschedulable",
    ),
    Situation(
        "LoraTrainingQueued",
        state("Queued", "Queued"),
        721,
        "LoraTraining ml/hina has waited in its queue for 12 hours",
    ),
    # Another replica begins to lead in between, and nobody tells anything for a moment.
    Situation(
        "LoraTrainingQueued",
        {f'lora_training_state{{{WHO}, phase="Queued", reason="Queued"}}': "1x300 stale _x1 1x500"},
        721,
        "LoraTraining ml/hina has waited in its queue for 12 hours",
    ),
    Situation(
        "LoraStorageErrors",
        of_training("lora_trainer_storage_retries_total", "0x5 1+1x20") | RUNNING,
        20,
        "LoraTraining ml/hina: the object store fails again and again",
    ),
    Situation(
        "LoraStorageErrors",
        ended_pods("StorageUnavailable", "1x20") | state("Starting", "Downloading"),
        5,
        "LoraTraining ml/hina: the object store fails again and again",
    ),
    Situation(
        "LoraTrainingUnsaved",
        of_training("lora_training_saved_state_timestamp_seconds", "0x200") | RUNNING,
        150,
        "LoraTraining ml/hina has stored no state for 2h 30m 0s",
    ),
    Situation(
        "LoraTrainingUnsaved",
        of_training("lora_training_active_seconds_total", "0+60x200") | RUNNING,
        150,
        "LoraTraining ml/hina has stored no state for 2h 30m 0s",
    ),
    # The leader ends; the next one lists everything before it tells of it.
    Situation(
        "LoraTrainingPending",
        {
            f'lora_training_state{{{WHO}, pod="a", phase="Pending", reason="Unschedulable"}}': "1x20 stale",
            f'lora_training_state{{{WHO}, pod="b", phase="Pending", reason="Unschedulable"}}': "_x22 1x20",
        },
        31,
        "LoraTraining ml/hina has not begun for 30 minutes: Unschedulable",
        reason="Unschedulable",
    ),
    # Nobody was ever there, and nobody is there any more.
    Situation("LoraOperatorDown", {}, 6, "No operator looks after LoraTrainings"),
    Situation("LoraOperatorDown", {leader("a"): "1x30 stale"}, 45, f"{DOWN} (operator in lora)", release="lora"),
    Situation("LoraOperatorDown", {leader("a"): "1x30 stale"}, 600, DOWN),
    # All stand by.
    Situation("LoraOperatorDown", {leader("a"): "0x20"}, 6, f"{DOWN} (operator in lora)", release="lora"),
    # Of two releases one is scaled to nothing, or stands by.
    Situation(
        "LoraOperatorDown",
        {leader("a"): "1x30 stale", leader("b", "other"): "1x60"},
        45,
        f"{DOWN} (operator in lora)",
        release="lora",
    ),
    Situation(
        "LoraOperatorDown",
        {leader("a"): "1x30 0x30", leader("b", "other"): "1x60"},
        45,
        f"{DOWN} (operator in lora)",
        release="lora",
    ),
    Situation(
        "LoraOperatorErrors",
        {
            'lora_operator_reconciles_total{result="error"}': "0+20x60",
            'lora_operator_reconciles_total{result="success"}': "0+100x60",
        },
        20,
        "The operator's looks at trainings fail",
    ),
    Situation(
        "LoraOperatorErrors",
        {
            'lora_operator_errors_total{kind="bug"}': "0x5 1x60",
            'lora_operator_reconciles_total{result="success"}': "0+100x60",
        },
        12,
        "The operator's looks at trainings fail",
    ),
    Situation(
        "LoraOperatorBehind",
        {"lora_operator_queue_depth": "120x60"},
        20,
        "120 LoraTrainings wait for the operator",
        "120",
    ),
]
QUIET = [
    Situation("LoraTrainingStalled", RUNNING, 60),
    Situation("LoraTrainingStalled", state("Failed", "Stalled"), 60),
    Situation(
        "LoraTrainingFailed",
        state("Failed", "OutOfMemory") | of_training("lora_training_completion_timestamp_seconds", "600x800"),
        90,
    ),
    Situation(
        "LoraTrainingFailed",
        state("Failed", "Cancelled") | of_training("lora_training_completion_timestamp_seconds", "600x800"),
        20,
    ),
    Situation("LoraTrainingFailed", ENDED | of_training("lora_training_completion_timestamp_seconds", "600x800"), 20),
    Situation("LoraTrainingDiverging", of_training("lora_training_loss", "0.10x30 0.15x200") | RUNNING, 120),
    Situation("LoraTrainingDiverging", LOSSES | ENDED, 120),
    Situation("LoraTrainingOverfitting", of_training("lora_training_overfit_epoch", "8x20") | ENDED, 10),
    Situation("LoraTrainingOutOfMemory", ended_pods("OutOfMemory", "1x20") | RUNNING, 10),
    Situation("LoraTrainingOutOfMemory", ended_pods("HostOutOfMemory", "4x20") | state("Failed", "x"), 10),
    Situation("LoraTrainingPending", state("Pending", "Unschedulable"), 20),
    Situation("LoraTrainingPending", state("Queued", "Queued"), 60),
    # It waited for something else before, or begins in time.
    Situation(
        "LoraTrainingPending",
        {
            f'lora_training_state{{{WHO}, phase="Pending", reason="ImagePullFailed"}}': "1x20 stale",
            f'lora_training_state{{{WHO}, phase="Pending", reason="Unschedulable"}}': "_x20 1x40",
        },
        40,
    ),
    Situation(
        "LoraTrainingPending",
        {
            f'lora_training_state{{{WHO}, phase="Pending", reason="Unschedulable"}}': "1x28 stale",
            f'lora_training_state{{{WHO}, phase="Running", reason="Training"}}': "_x28 1x40",
        },
        30,
    ),
    Situation("LoraTrainingQueued", state("Queued", "Queued"), 700),
    Situation("LoraStorageErrors", of_training("lora_trainer_storage_retries_total", "0x5 1x60") | RUNNING, 20),
    Situation("LoraStorageErrors", ended_pods("StorageUnavailable", "1x20") | ENDED, 10),
    Situation("LoraTrainingUnsaved", of_training("lora_training_saved_state_timestamp_seconds", "0x200") | RUNNING, 60),
    Situation("LoraTrainingUnsaved", of_training("lora_training_saved_state_timestamp_seconds", "0x200") | ENDED, 150),
    Situation(
        "LoraTrainingUnsaved",
        of_training("lora_training_saved_state_timestamp_seconds", "0+60x200")
        | of_training("lora_training_active_seconds_total", "0+60x200")
        | RUNNING,
        150,
    ),
    # Paused for 19 hours, and running again for ten minutes.
    Situation(
        "LoraTrainingUnsaved",
        of_training("lora_training_saved_state_timestamp_seconds", "1200x1200")
        | {
            f'lora_training_state{{{WHO}, phase="Running", reason="Training"}}': "1x20 _x1139 1x40",
            f'lora_training_state{{{WHO}, phase="Suspended", reason="Paused"}}': "_x21 1x1138 _x40",
        },
        1170,
    ),
    # Two replicas: one is lost.
    Situation("LoraOperatorDown", {leader("a"): "1x60", leader("b"): "0x20 stale"}, 40),
    # Another replica begins to lead, at once or after a moment without any.
    Situation("LoraOperatorDown", {leader("a"): "1x20 stale", leader("b"): "0x20 1x40"}, 30),
    Situation("LoraOperatorDown", {leader("a"): "1x20 stale", leader("b"): "0x23 1x40"}, 26),
    # A release that is long gone is no longer missed.
    Situation("LoraOperatorDown", {leader("a"): "1x30 stale", leader("b", "other"): "1x600"}, 420),
    Situation(
        "LoraOperatorErrors",
        {
            'lora_operator_reconciles_total{result="error"}': "0+1x60",
            'lora_operator_reconciles_total{result="success"}': "0+100x60",
        },
        30,
    ),
    Situation("LoraOperatorBehind", {"lora_operator_queue_depth": "120x5 3x60"}, 30),
]


def expected(situation: Situation) -> Firing:
    """The alert as it is sent: its labels, and its texts with everything filled in."""
    alert = KNOWN[situation.alert]
    who = {"namespace": "ml", "name": "hina"} if alert.name.startswith("LoraTraining") else {}
    who = {"namespace": "ml", "name": "hina"} if alert.name == "LoraStorageErrors" else who
    labels = who | ({"reason": situation.reason} if situation.reason else {})
    labels |= {"namespace": situation.release, "job": "lora-operator-metrics"} if situation.release else {}
    description = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], alert.description)
    description = re.sub(r"\{\{ \$value[^}]*\}\}", situation.value, description)
    annotations = {"summary": situation.summary, "description": description}
    page = {"runbook_url": f"{RUNBOOKS}/{alert.name}.md"}
    return Firing({**labels, "severity": alert.severity}, annotations | page)


@pytest.mark.parametrize("situation", FIRING, ids=lambda found: found.alert)
def test_an_alert_fires_and_says_of_what(situation: Situation, tmp_path: Path) -> None:
    case = Case(situation.alert, situation.series, situation.minutes, (expected(situation),))

    assert judge(case, tmp_path) == ""


@pytest.mark.parametrize("situation", QUIET, ids=lambda found: found.alert)
def test_an_alert_keeps_quiet_where_all_is_well(situation: Situation, tmp_path: Path) -> None:
    assert judge(Case(situation.alert, situation.series, situation.minutes), tmp_path) == ""


def test_every_alert_is_tested_both_ways() -> None:
    assert {found.alert for found in FIRING} == {found.alert for found in QUIET} == KNOWN.keys()


def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run([program("promtool"), "check", "rules", str(ALERTS)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("alert", KNOWN.values(), ids=lambda alert: alert.name)
def test_every_alert_has_a_page_that_says_what_it_means_how_to_see_and_what_to_do(alert: Alert) -> None:
    page = (ROOT / RUNBOOKS / f"{alert.name}.md").read_text()

    headings = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    assert headings == [alert.name, "What it means", "How to see it", "What to do"]
    assert f"`{alert.severity}`" in page
    assert "```sh\n" in page


def test_no_page_is_about_an_alert_that_is_not_there() -> None:
    assert {page.stem for page in (ROOT / RUNBOOKS).glob("*.md")} == KNOWN.keys()


def test_the_page_on_watching_lists_every_alert_with_its_severity() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()

    listed = re.findall(r"^\| \[(\w+)\]\(runbooks/\1\.md\) \| (\w+) \|", page, flags=re.MULTILINE)
    assert listed == [(alert.name, alert.severity) for alert in KNOWN.values()]
