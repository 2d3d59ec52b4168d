"""The dashboard *Fleet*: what all trainings together do with the cluster, for who runs it."""

from lora_monitoring.grafana import Dashboard, Section
from lora_monitoring.panels import Bars, Override, Panel, Query, Scale, Stat, Step, TimeSeries
from lora_monitoring.queries import (
    IN_NAMESPACE,
    LEGEND,
    RATE,
    TRAINING,
    of_training,
    or_none,
    or_zero,
    summed,
    trainings_by_phase,
)
from lora_monitoring.runs import NAMESPACES, PHASE_COLORS

_STATE = "lora_training_state"


def dashboard() -> Dashboard:
    """The page."""
    return Dashboard(
        uid="lora-fleet",
        title="LoRA / Fleet",
        description="What all trainings together do with the cluster.",
        variables=(NAMESPACES,),
        sections=(
            Section("Now", _now()),
            Section("Phases and queue", _phases()),
            Section("Throughput and GPU time", _throughput()),
            Section("Retries and interruptions", _retries()),
            Section("Storage", _storage()),
        ),
        range="now-24h",
    )


def _in_phase(phases: str) -> str:
    return f'max by ({TRAINING}) ({_STATE}{{{IN_NAMESPACE}, phase=~"{phases}"}})'


def _while_running(metric: str) -> str:
    """The value of the trainings that make steps now; the last values of the others do not count."""
    return f"{of_training(metric, chosen=IN_NAMESPACE)} and {_in_phase('Running')}"


def _failed_lately() -> str:
    ended = of_training("lora_training_completion_timestamp_seconds", chosen=IN_NAMESPACE)
    failed = of_training(_STATE, chosen=f'{IN_NAMESPACE}, phase="Failed", reason!="Cancelled"')
    return or_zero(f"count((time() - {ended} < 86400) and {failed})")


def _now() -> tuple[Panel, ...]:
    gpus = or_zero(f"sum({_while_running('lora_training_gpus')})")
    pictures = or_zero(f"sum({_while_running('lora_training_images_per_second')})")
    hours = or_zero(f"sum(increase({_gpu_seconds()}[$__range:])) / 3600")
    return (
        _count("Running", "Trainings that make steps now.", or_zero(f"count({_in_phase('Running')})")),
        _count(
            "Waiting",
            "Trainings that wait for a queue, a node, an image or a Secret.",
            or_zero(f"count({_in_phase('Pending|Queued')})"),
        ),
        _count(
            "Failed in 24 hours",
            "Trainings that failed within the last 24 hours, cancelled ones aside; see alert LoraTrainingFailed.",
            _failed_lately(),
            steps=(Step(None, "green"), Step(1, "red")),
        ),
        _count("GPUs at work", "GPUs of the trainings that make steps now.", gpus),
        Stat(
            "Pictures per second",
            "Pictures trained per second by all trainings that make steps now.",
            (Query(pictures, "pictures/s"),),
            width=4,
            height=5,
            scale=Scale("none", decimals=1, minimum=0, steps=(Step(None, "text"),)),
        ),
        Stat(
            "GPU hours",
            "GPU hours used within the time that is shown.",
            (Query(hours, "hours", instant=True),),
            width=4,
            height=5,
            scale=Scale("none", decimals=1, minimum=0, steps=(Step(None, "text"),)),
        ),
    )


def _count(title: str, description: str, expression: str, *, steps: tuple[Step, ...] = (Step(None, "text"),)) -> Stat:
    scale = Scale("none", decimals=0, minimum=0, steps=steps)
    return Stat(title, description, (Query(expression, title),), width=4, height=5, scale=scale)


def _gpu_seconds(by: str = TRAINING) -> str:
    return of_training("lora_training_gpu_seconds_total", chosen=IN_NAMESPACE, by=by)


def _phases() -> tuple[Panel, ...]:
    phases = f"max by ({TRAINING}, phase) ({_STATE}{{{IN_NAMESPACE}}})"
    waiting = f'max by ({TRAINING}, reason) ({_STATE}{{{IN_NAMESPACE}, phase=~"Pending|Queued|Starting"}})'
    longest = f"time() - {of_training('lora_training_created_timestamp_seconds', chosen=IN_NAMESPACE)}"
    return (
        TimeSeries(
            "Trainings by phase",
            "How many LoraTrainings there are in each phase.",
            # With zeros: a phase that no training is in any more would keep its last number in the legend.
            (Query(f"count by (phase) ({phases}) or 0 * {trainings_by_phase()}", "{{phase}}"),),
            stacked=True,
            scale=Scale("none", decimals=0, minimum=0),
            overrides=PHASE_COLORS,
            legend="right",
        ),
        TimeSeries(
            "Waiting, by reason",
            "Why trainings have not begun: reasons of the condition Scheduled, or what the trainer does before its "
            "first step.",
            (Query(or_none(f"count by (reason) ({waiting})", "reason"), "{{reason}}"),),
            stacked=True,
            scale=Scale("none", decimals=0, minimum=0),
            calculations=("max",),
            legend="right",
        ),
        TimeSeries(
            "Longest wait",
            "Time since the creation of the oldest training that has not begun; see alert LoraTrainingPending.",
            (Query(or_zero(f"max({longest} and {_in_phase('Pending|Queued')})"), "longest wait"),),
            scale=Scale("dtdhms", minimum=0, steps=(Step(None, "green"), Step(3600, "orange"))),
        ),
    )


def _throughput() -> tuple[Panel, ...]:
    by_namespace = f"sum by (namespace) ({_while_running('lora_training_images_per_second')})"
    gpus = f"sum by (namespace) ({_while_running('lora_training_gpus')})"
    used = f"sort_desc(topk(10, increase({_gpu_seconds()}[$__range:])))"
    ended = "lora_training_completion_timestamp_seconds"
    return (
        TimeSeries(
            "Pictures per second",
            "Pictures trained per second, by namespace.",
            (Query(or_none(by_namespace, "namespace"), "{{namespace}}"),),
            stacked=True,
            scale=Scale("none", decimals=1, minimum=0),
            calculations=("mean", "max"),
        ),
        TimeSeries(
            "GPUs at work",
            "GPUs of the trainings that make steps, by namespace.",
            (Query(or_none(gpus, "namespace"), "{{namespace}}"),),
            stacked=True,
            scale=Scale("none", decimals=0, minimum=0),
            calculations=("mean", "max"),
        ),
        Bars(
            "GPU time, most first",
            "GPU time of the ten trainings that used most of it within the time that is shown.",
            (Query(used, LEGEND, instant=True),),
            scale=Scale("dtdhms", minimum=0, steps=(Step(None, "blue"),)),
        ),
        TimeSeries(
            "Ended per hour",
            "Trainings that came to an end within the last hour, by phase.",
            (Query(or_none(_ended_within_an_hour(ended), "phase"), "{{phase}}"),),
            stacked=True,
            scale=Scale("none", decimals=0, minimum=0),
            overrides=(Override("Succeeded", color="green"), Override("Failed", color="red")),
            calculations=("max",),
        ),
        TimeSeries(
            "Time from creation to the first Job",
            "Mean over the trainings that began; waiting in a queue comes after it.",
            (Query(or_zero(f"avg({_wait_for_first_job()})"), "mean"),),
            scale=Scale("s", minimum=0),
        ),
        TimeSeries(
            "Steps made twice",
            "Share of all steps that had to be made again after an interruption.",
            (Query(f"{summed('lora_training_lost_steps')} / ({summed('lora_training_step')} > 0)", "lost"),),
            scale=Scale("percentunit", decimals=2, minimum=0),
        ),
    )


def _ended_within_an_hour(ended: str) -> str:
    recent = f"(time() - {of_training(ended, chosen=IN_NAMESPACE)} < 3600)"
    phases = f"max by ({TRAINING}, phase) ({_STATE}{{{IN_NAMESPACE}}})"
    return f"count by (phase) ({phases} and on ({TRAINING}) {recent})"


def _wait_for_first_job() -> str:
    started, created = "lora_training_start_timestamp_seconds", "lora_training_created_timestamp_seconds"
    return f"{of_training(started, chosen=IN_NAMESPACE)} - {of_training(created, chosen=IN_NAMESPACE)}"


def _retries() -> tuple[Panel, ...]:
    failures = of_training("lora_training_failures", chosen=IN_NAMESPACE)
    preemptions = of_training("lora_training_preemptions", chosen=IN_NAMESPACE)
    ended = of_training("lora_training_ended_pods", chosen=IN_NAMESPACE, by=f"{TRAINING}, reason")
    return (
        TimeSeries(
            "Failures and interruptions",
            "Pods that failed and were counted, and pods that were preempted, evicted or lost, within an hour.",
            (
                Query(f"sum(increase(({failures})[1h:]))", "failed"),
                Query(f"sum(increase(({preemptions})[1h:]))", "interrupted"),
            ),
            scale=Scale("none", decimals=0, minimum=0),
            overrides=(Override("failed", color="red"), Override("interrupted", color="orange")),
            calculations=("lastNotNull", "max"),
        ),
        TimeSeries(
            "Pods that ended early, by reason",
            "Pods that did not complete, of trainings that go on; the reasons are those of docs/errors.md.",
            (Query(or_none(f"sum by (reason) ({ended})", "reason"), "{{reason}}"),),
            stacked=True,
            scale=Scale("none", decimals=0, minimum=0),
        ),
        Bars(
            "Most failures",
            "The ten trainings whose pods failed most often.",
            (Query(f"sort_desc(topk(10, {failures}))", LEGEND, instant=True),),
            scale=Scale("none", decimals=0, minimum=0, steps=(Step(None, "green"), Step(1, "orange"), Step(3, "red"))),
        ),
    )


def _storage() -> tuple[Panel, ...]:
    fetched, stored = (_traffic(f"lora_trainer_{way}_bytes_total") for way in ("fetched", "stored"))
    saves = f"sum by (le) (rate(lora_trainer_state_save_duration_seconds_bucket{{{IN_NAMESPACE}}}{RATE}))"
    retries = f"sum by (namespace) (rate(lora_trainer_storage_retries_total{{{IN_NAMESPACE}}}{RATE}))"
    return (
        TimeSeries(
            "Traffic",
            "Bytes per second read from and written to object stores and hubs by all running pods.",
            (Query(fetched, "read"), Query(stored, "written")),
            scale=Scale("Bps", minimum=0),
            calculations=("mean", "max"),
        ),
        TimeSeries(
            "Time to store a state",
            "Half and 95 % of the states were written, stored and read back within this time; the grace period of "
            "the pods must be longer.",
            (
                Query(f"histogram_quantile(0.5, {saves})", "half"),
                Query(f"histogram_quantile(0.95, {saves})", "95 %"),
            ),
            scale=Scale("s", minimum=0),
        ),
        TimeSeries(
            "Requests tried again",
            "Requests to object stores per second that failed in a way that may pass; see alert LoraStorageErrors.",
            (Query(or_none(retries, "namespace"), "{{namespace}}"),),
            scale=Scale("reqps", minimum=0),
        ),
    )


def _traffic(metric: str) -> str:
    return f"sum(rate({metric}{{{IN_NAMESPACE}}}{RATE}))"
