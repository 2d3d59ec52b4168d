"""The dashboard *Operator*: whether the operator keeps up, and what it asks of the API server."""

from lora_monitoring.grafana import Dashboard, Section
from lora_monitoring.panels import Panel, Query, Scale, Stat, Step, TimeSeries
from lora_monitoring.queries import RATE, RELEASE, trainings_by_phase
from lora_monitoring.runs import PHASE_COLORS

_SECONDS = "lora_operator_reconcile_duration_seconds_bucket"


def dashboard() -> Dashboard:
    """The page."""
    return Dashboard(
        uid="lora-operator",
        title="LoRA / Operator",
        description="Whether the operator keeps up, and what it asks of the API server.",
        sections=(
            Section("Now", (*_who_leads(), *_whether_it_keeps_up())),
            Section("Work", _work()),
            Section("API server", _requests()),
            Section("Process", _process()),
        ),
        range="now-3h",
    )


def _who_leads() -> tuple[Panel, ...]:
    quiet = (Step(None, "text"),)
    return (
        Stat(
            "Leader",
            "Replicas that act: exactly one should, of each operator where there are several. 0: none holds the Lease; "
            "see alert LoraOperatorDown.",
            (Query(f"sum by ({RELEASE}) (lora_operator_leader)", "{{namespace}} {{job}}"),),
            width=4,
            height=5,
            scale=Scale("none", decimals=0, steps=(Step(None, "red"), Step(1, "green"), Step(2, "red"))),
        ),
        Stat(
            "Replicas",
            "Replicas that answer the scrape, the leader included.",
            (Query("count(lora_operator_leader)", "replicas"),),
            width=4,
            height=5,
            scale=Scale("none", decimals=0, steps=quiet),
        ),
        Stat(
            "Trainings",
            "LoraTrainings that the leader looks after, ended ones included.",
            (Query(f"sum({trainings_by_phase()})", "trainings"),),
            width=4,
            height=5,
            scale=Scale("none", decimals=0, steps=quiet),
        ),
    )


def _whether_it_keeps_up() -> tuple[Panel, ...]:
    return (
        Stat(
            "Queue",
            "Trainings that wait for a look. More than a hundred for long: it does not keep up.",
            (Query("sum(lora_operator_queue_depth)", "queue"),),
            width=4,
            height=5,
            scale=Scale("none", decimals=0, steps=(Step(None, "green"), Step(100, "orange"), Step(1000, "red"))),
        ),
        Stat(
            "Looks that failed",
            "Share of the looks at a training that ended in an error; see alert LoraOperatorErrors.",
            (Query(_error_share(), "failed"),),
            width=4,
            height=5,
            scale=Scale(
                "percentunit",
                decimals=1,
                minimum=0,
                steps=(Step(None, "green"), Step(0.01, "orange"), Step(0.1, "red")),
            ),
        ),
        Stat(
            "Slow looks",
            "99 of 100 looks at a training take less time than this.",
            (Query(_quantile(0.99), "99 %"),),
            width=4,
            height=5,
            scale=Scale("s", minimum=0, steps=(Step(None, "green"), Step(1, "orange"), Step(10, "red"))),
        ),
    )


def _error_share() -> str:
    looks = "lora_operator_reconciles_total"
    failed = f'(sum(rate({looks}{{result="error"}}{RATE})) or vector(0))'
    return f"{failed} / (sum(rate({looks}{RATE})) > 0) or vector(0)"


def _quantile(share: float) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({_SECONDS}{RATE})))"


def _work() -> tuple[Panel, ...]:
    return (
        TimeSeries(
            "Queue depth",
            "Trainings that wait for a look.",
            (Query("sum(lora_operator_queue_depth)", "waiting"),),
            scale=Scale("none", decimals=0, minimum=0),
            calculations=("lastNotNull", "max"),
        ),
        TimeSeries(
            "Looks",
            "Looks at a training per second, by result: `requeue` means that somebody wrote first.",
            (Query(f"sum by (result) (rate(lora_operator_reconciles_total{RATE}))", "{{result}}"),),
            stacked=True,
            scale=Scale("ops", minimum=0),
        ),
        TimeSeries(
            "Time of a look",
            "Half, 90 % and 99 % of the looks at a training take less time than this.",
            tuple(Query(_quantile(share), name) for share, name in ((0.5, "half"), (0.9, "90 %"), (0.99, "99 %"))),
            scale=Scale("s", minimum=0),
            calculations=("lastNotNull", "max"),
        ),
        TimeSeries(
            "Errors",
            "Errors per second by kind; docs/metrics.md explains the kinds. `bug` is ours, please report it.",
            (Query(f"sum by (kind) (rate(lora_operator_errors_total{RATE}))", "{{kind}}"),),
            scale=Scale("ops", minimum=0),
        ),
        TimeSeries(
            "Time since the last event",
            "Time since the watch of each kind delivered something. It grows in a quiet cluster too; while trainings "
            "run it should not.",
            (Query("min by (kind) (lora_operator_last_event_age_seconds)", "{{kind}}"),),
            scale=Scale("dtdhms", minimum=0),
        ),
        TimeSeries(
            "Trainings by phase",
            "How many LoraTrainings there are in each phase, as the leader counts them.",
            (Query(trainings_by_phase(), "{{phase}}"),),
            stacked=True,
            scale=Scale("none", decimals=0, minimum=0),
            overrides=PHASE_COLORS,
            legend="right",
        ),
    )


def _requests() -> tuple[Panel, ...]:
    requests = "lora_operator_api_requests_total"
    return (
        TimeSeries(
            "Requests by verb",
            "Requests to the API server per second, watches aside.",
            (Query(f"sum by (verb) (rate({requests}{RATE}))", "{{verb}}"),),
            stacked=True,
            scale=Scale("reqps", minimum=0),
            calculations=("mean", "max"),
        ),
        TimeSeries(
            "Requests by kind of object",
            "Requests to the API server per second, by what they are about.",
            (Query(f"sum by (resource) (rate({requests}{RATE}))", "{{resource}}"),),
            stacked=True,
            scale=Scale("reqps", minimum=0),
            calculations=("mean", "max"),
        ),
        TimeSeries(
            "Answers",
            "Answers of the API server per second by code: 409 is normal, 429 means that it asks for patience, 403 "
            "that a role is missing.",
            (Query(f"sum by (code) (rate({requests}{RATE}))", "{{code}}"),),
            stacked=True,
            scale=Scale("reqps", minimum=0),
        ),
    )


def _process() -> tuple[Panel, ...]:
    this = "and on (job, instance) lora_operator_leader"
    return (
        TimeSeries(
            "CPU",
            "Processor time that each replica uses, in cores.",
            (Query(f"rate(process_cpu_seconds_total{RATE}) {this}", "{{pod}}"),),
            width=12,
            scale=Scale("none", decimals=3, minimum=0),
        ),
        TimeSeries(
            "Memory",
            "Memory that each replica holds.",
            (Query(f"process_resident_memory_bytes {this}", "{{pod}}"),),
            width=12,
            scale=Scale("bytes", minimum=0),
        ),
    )
