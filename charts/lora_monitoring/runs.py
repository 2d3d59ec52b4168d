"""The dashboard *Runs*: how the chosen trainings learn, how fast, and what troubles them."""

from lora_monitoring.grafana import Choice, Dashboard, Mark, Section, Variable
from lora_monitoring.panels import Mapped, Override, Panel, Query, Scale, Stat, Step, Table, TimeSeries
from lora_monitoring.queries import CHOSEN, LEGEND, TRAINING, of_training, or_none

PHASES = (
    Mapped("Pending", "Pending", "yellow"),
    Mapped("Queued", "Queued", "purple"),
    Mapped("Starting", "Starting", "blue"),
    Mapped("Running", "Running", "green"),
    Mapped("Suspended", "Suspended", "gray"),
    Mapped("Succeeded", "Succeeded", "text"),
    Mapped("Failed", "Failed", "red"),
)
PHASE_COLORS = tuple(Override(phase.value, color=phase.color) for phase in PHASES)
NAMESPACES = Variable(
    "namespace",
    "Namespace",
    "label_values(lora_training_state, namespace)",
    "Namespaces that hold a LoraTraining.",
)
TRAININGS = Variable(
    "training",
    "Training",
    'label_values(lora_training_state{namespace=~"$namespace"}, name)',
    "LoraTrainings of these namespaces, also those that have ended.",
)
SMOOTHING = Choice("smoothing", "Smoothing", ("10m", "1m", "1h"), "Time over which the smoothed loss is averaged.")
_ONE_BAD = (Step(None, "green"), Step(1, "orange"), Step(3, "red"))


def dashboard() -> Dashboard:
    """The page."""
    return Dashboard(
        uid="lora-runs",
        title="LoRA / Runs",
        description="How the chosen trainings learn, how fast, and what troubles them. Values stay after the end.",
        variables=(NAMESPACES, TRAININGS, SMOOTHING),
        marks=_MARKS,
        sections=(
            Section("Where they are", (_overview(), *_stats())),
            Section("What they learn", (*_losses(), *_learning())),
            Section("How fast, and with what", _speed()),
            Section("What went wrong", _trouble()),
        ),
    )


_FAILURES = of_training("lora_training_failures")
_MARKS = (
    Mark(
        "Best epoch so far",
        f"{of_training('lora_training_best_epoch')} == {of_training('lora_training_epoch')} > 0",
        "{{namespace}}/{{name}} does best on held-out pictures after this epoch",
        "green",
    ),
    Mark(
        "Pod failed",
        f"{_FAILURES} > (max by ({TRAINING}) (lora_training_failures{{{CHOSEN}}} offset 1m) or 0 * {_FAILURES})",
        "a pod of {{namespace}}/{{name}} failed",
        "red",
    ),
)


def _overview() -> Panel:
    columns = {
        "namespace": "Namespace",
        "name": "Training",
        "phase": "Phase",
        "reason": "Reason",
        "Value #B": "Done",
        "Value #C": "Epoch",
        "Value #D": "of",
        "Value #E": "Loss",
        "Value #F": "Held-out loss",
        "Value #G": "Best epoch",
        "Value #H": "Pictures/s",
        "Value #I": "Left",
        "Value #J": "GPU time",
    }
    metrics = (
        "lora_training_progress_ratio",
        "lora_training_epoch",
        "lora_training_total_epochs",
        "lora_training_loss",
        "lora_training_validation_loss",
        "lora_training_best_epoch",
        "lora_training_images_per_second",
        "lora_training_remaining_seconds",
        "lora_training_gpu_seconds_total",
    )
    state = Query(of_training("lora_training_state", by=f"{TRAINING}, phase, reason"), instant=True, as_table=True)
    return Table(
        "Trainings",
        "Each chosen LoraTraining with its phase and the reason for it, as `kubectl get lt -o wide` shows them. "
        "The values of ended trainings stay until the object is deleted.",
        (state, *(Query(of_training(metric), instant=True, as_table=True) for metric in metrics)),
        width=24,
        height=8,
        columns=columns,
        overrides=(
            Override("Phase", mapped=PHASES, cell="color-background", width=110),
            Override("Done", unit="percentunit", maximum=1, cell="gauge", width=180),
            Override("Loss", decimals=4),
            Override("Held-out loss", decimals=4),
            Override("Pictures/s", decimals=2),
            Override("Left", unit="dtdhms"),
            Override("GPU time", unit="dtdhms"),
        ),
        scale=Scale(minimum=0),
    )


def _stats() -> tuple[Panel, ...]:
    return (
        Stat(
            "Done",
            "Share of the planned steps that is made.",
            (Query(of_training("lora_training_progress_ratio"), LEGEND),),
            width=6,
            height=5,
            scale=Scale("percentunit", decimals=0, minimum=0, maximum=1, steps=(Step(None, "blue"), Step(1, "green"))),
        ),
        Stat(
            "Time left",
            "Estimated from the mean speed since this pod's first step, pauses for saving and drawing included.",
            (Query(of_training("lora_training_remaining_seconds"), LEGEND),),
            width=6,
            height=5,
            scale=Scale("dtdhms", minimum=0, steps=(Step(None, "text"),)),
        ),
        Stat(
            "Best epoch",
            "The epoch whose adapter does best on held-out pictures, or by the knee of gain against drift where "
            "nothing is held out; 0 until one was measured.",
            (Query(f"{of_training('lora_training_best_epoch')} or 0 * {of_training('lora_training_state')}", LEGEND),),
            width=6,
            height=5,
            scale=Scale("none", decimals=0, steps=(Step(None, "text"), Step(1, "green"))),
        ),
        Stat(
            "Over-trained since epoch",
            "From this epoch on held-out pictures got worse while trained ones got better; 0: that did not happen.",
            (
                Query(
                    f"{of_training('lora_training_overfit_epoch')} or 0 * {of_training('lora_training_state')}", LEGEND
                ),
            ),
            width=6,
            height=5,
            scale=Scale("none", decimals=0, steps=(Step(None, "green"), Step(1, "orange"))),
        ),
    )


def _losses() -> tuple[Panel, ...]:
    smoothed = f"max by ({TRAINING}) (avg_over_time(lora_training_loss{{{CHOSEN}}}[$smoothing]))"
    return (
        TimeSeries(
            "Training loss",
            "Mean loss of the last epoch's worth of steps as the trainer tells it, and its mean over the time "
            "chosen as smoothing. Compare it within one training only.",
            (Query(of_training("lora_training_loss"), LEGEND), Query(smoothed, f"{LEGEND} smoothed")),
            width=12,
            height=9,
            scale=Scale(decimals=4),
            calculations=("lastNotNull",),
        ),
        TimeSeries(
            "Held-out and trained pictures",
            "Loss after each saved epoch on pictures that were never trained on, and on as many that were, at the "
            "same noise; 1 is the base model. Where the first rises while the second falls, it over-fits.",
            (
                Query(of_training("lora_training_validation_loss"), f"{LEGEND} held out"),
                Query(of_training("lora_training_training_loss"), f"{LEGEND} trained"),
            ),
            width=12,
            height=9,
            scale=Scale(decimals=4, steps=(Step(None, "green"), Step(1, "red"))),
            points=True,
        ),
    )


def _learning() -> tuple[Panel, ...]:
    return (
        TimeSeries(
            "Learning rate",
            "Learning rate of the UNet's adapters, as the schedule sets it.",
            (Query(of_training("lora_training_learning_rate"), LEGEND),),
            scale=Scale("sci", minimum=0),
        ),
        TimeSeries(
            "Epoch",
            "Epochs completed, and the one that does best so far.",
            (
                Query(of_training("lora_training_epoch"), LEGEND),
                Query(of_training("lora_training_best_epoch"), f"{LEGEND} best"),
            ),
            scale=Scale("none", decimals=0, minimum=0),
        ),
        TimeSeries(
            "Drift",
            "How far pictures of unrelated captions have moved from the base model; 0 is not at all. Much drift with "
            "little gain is a sign of too high a learning rate.",
            (Query(of_training("lora_training_drift"), LEGEND),),
            scale=Scale(decimals=4, minimum=0),
            points=True,
        ),
    )


def _speed() -> tuple[Panel, ...]:
    return (
        TimeSeries(
            "Pictures per second",
            "Pictures trained per second over the last steps, all batches and processes together.",
            (Query(of_training("lora_training_images_per_second"), LEGEND),),
            scale=Scale("none", decimals=2, minimum=0),
            calculations=("lastNotNull", "mean"),
        ),
        TimeSeries(
            "Time left",
            "Estimated time until the last step. It should fall by a minute a minute; a line that stays level means "
            "that the training gets slower.",
            (Query(of_training("lora_training_remaining_seconds"), LEGEND),),
            scale=Scale("dtdhms", minimum=0),
        ),
        TimeSeries(
            "GPU memory",
            "Most memory of the device in use at once since the pod began; of the process where there is no GPU.",
            (Query(of_training("lora_training_device_memory_bytes"), LEGEND),),
            scale=Scale("bytes", minimum=0),
            calculations=("max",),
        ),
        TimeSeries(
            "GPU time",
            "Running time of all attempts, times the GPUs that were asked for. Pauses and waiting in a queue do not "
            "count, waiting for a node does.",
            (Query(of_training("lora_training_gpu_seconds_total"), LEGEND),),
            scale=Scale("dtdhms", minimum=0),
        ),
        TimeSeries(
            "Age of the newest state",
            "What would have to be made again if the pod were lost now: time since the newest state, or running time "
            "where there is none yet; 0 once the training has ended. `checkpoints.everySeconds` bounds it.",
            (Query(_STATE_AGE, LEGEND),),
            scale=Scale("dtdhms", minimum=0),
        ),
        TimeSeries(
            "Last word of the trainer",
            "Time since the trainer last told its progress; 0 once the training has ended.",
            (Query(_SILENCE, LEGEND),),
            scale=Scale("dtdhms", minimum=0),
        ),
    )


def _while_it_goes_on(seconds: str) -> str:
    """The time while the training is at work; 0 after its end."""
    at_work = f'max by ({TRAINING}) (lora_training_state{{{CHOSEN}, phase=~"Running|Starting"}})'
    return f"({seconds}) and {at_work} or 0 * {of_training('lora_training_state')}"


_STATE_AGE = _while_it_goes_on(
    f"time() - {of_training('lora_training_saved_state_timestamp_seconds')}"
    f" or {of_training('lora_training_active_seconds_total')}"
)
_SILENCE = _while_it_goes_on(f"time() - {of_training('lora_training_updated_timestamp_seconds')}")


def _trouble() -> tuple[Panel, ...]:
    ended = of_training("lora_training_ended_pods", by=f"{TRAINING}, reason")
    return (
        TimeSeries(
            "Failures",
            "Pods that failed and were counted; the training fails when there are more than `retry.maxFailures`.",
            (Query(of_training("lora_training_failures"), LEGEND),),
            width=6,
            scale=Scale("none", decimals=0, minimum=0, steps=_ONE_BAD),
        ),
        TimeSeries(
            "Interruptions",
            "Pods that were preempted, evicted or lost with their node. They do not count as failures.",
            (Query(of_training("lora_training_preemptions"), LEGEND),),
            width=6,
            scale=Scale("none", decimals=0, minimum=0),
        ),
        TimeSeries(
            "Steps made twice",
            "Steps that were lost with a pod and had to be made again.",
            (Query(of_training("lora_training_lost_steps"), LEGEND),),
            width=6,
            scale=Scale("none", decimals=0, minimum=0),
        ),
        TimeSeries(
            "Pods that ended early, by reason",
            "Pods that did not complete, of the chosen trainings that go on; why one failed is told by its reason "
            "above. The words are those of docs/errors.md.",
            (Query(or_none(f"sum by (reason) ({ended})", "reason"), "{{reason}}"),),
            width=6,
            stacked=True,
            scale=Scale("none", decimals=0, minimum=0),
        ),
    )
