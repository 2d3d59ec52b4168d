"""The alerts: about trainings for those who train, about the operator for those who run it. Written by `__main__`."""

from lora_monitoring.queries import RELEASE, TRAINING
from lora_monitoring.rules import Alert, Group

_WHICH = "LoraTraining {{ $labels.namespace }}/{{ $labels.name }}"
_DESCRIBE = "`kubectl describe lt -n {{ $labels.namespace }} {{ $labels.name }}`"
_WITH_REASON = f"{TRAINING}, reason"

_OF_RELEASE = "{{ with $labels.namespace }} (operator in {{ . }}){{ end }}"


def _of(metric: str, *, by: str = TRAINING) -> str:
    """The value of each training, whichever replica of the operator tells it."""
    return f"max by ({by}) ({metric})"


_RUNNING = _of('lora_training_state{phase="Running"}')
_GOES_ON = _of('lora_training_state{phase!~"Succeeded|Failed"}')
_RAN_FOR_TWO_HOURS = f"count_over_time(({_RUNNING})[2h:5m]) > 22"
"""Of 24 looks; in a pause or a queue a state gets old and nothing is lost."""
_PENDING = 'lora_training_state{phase="Pending"}'
_PENDING_FOR_30_MINUTES = f"count_over_time(({_of(_PENDING, by=_WITH_REASON)})[30m:1m]) > 27"
"""Of 30 looks: when another replica begins to lead, nobody tells anything for a moment, and `for` would begin anew."""
_FAILED = _of('lora_training_state{phase="Failed", reason!="Cancelled"}', by=_WITH_REASON)
_ENDED_LATELY = f"time() - {_of('lora_training_completion_timestamp_seconds')} < 3600"


def _ended_pods(reasons: str) -> str:
    """Pods of a training that ended for one of these reasons, or attempts of pods that train together."""
    pods = f'lora_training_ended_pods{{reason=~"{reasons}"}}'
    return f"sum by ({TRAINING}) ({_of(pods, by=_WITH_REASON)})"


STALLED = Alert(
    "LoraTrainingStalled",
    _of('lora_training_state{reason="Stalled", phase!~"Succeeded|Failed"}'),
    "warning",
    f"{_WHICH} gives no sign of life",
    "No step, picture or byte for longer than is usual for what it does. The trainer ends itself after as long again, "
    f"and the next pod goes on from the newest state. See {_DESCRIBE}.",
    wait="1m",
)
FAILED = Alert(
    "LoraTrainingFailed",
    f"{_FAILED} and on ({TRAINING}) ({_ENDED_LATELY})",
    "warning",
    f"{_WHICH} failed: {{{{ $labels.reason }}}}",
    "It failed for good within the last hour and never starts again. `status.failure` says why and what to do: "
    f"{_DESCRIBE}.",
)
DIVERGING = Alert(
    "LoraTrainingDiverging",
    f"{_of('lora_training_loss')} > 2 * min by ({TRAINING}) (min_over_time(lora_training_loss[6h])) and {_RUNNING}",
    "warning",
    f"{_WHICH}: the loss is twice what it was",
    "The mean loss of an epoch's worth of steps is {{ $value | humanize }}, more than twice its lowest value of the "
    "last 6 hours. The learning rate is most likely too high; the adapters of earlier epochs are kept.",
    wait="5m",
)
OVERFITTING = Alert(
    "LoraTrainingOverfitting",
    f"{_of('lora_training_overfit_epoch')} > 0 and {_RUNNING}",
    "info",
    f"{_WHICH} over-fits since epoch {{{{ $value }}}}",
    "Held-out pictures get worse while trained ones get better. More epochs make it no better: stop it, or set "
    "`evaluation.earlyStop` next time. The best epoch is kept.",
)
OUT_OF_MEMORY = Alert(
    "LoraTrainingOutOfMemory",
    f"{_ended_pods('OutOfMemory|HostOutOfMemory')} >= 2 and {_GOES_ON}",
    "warning",
    f"{_WHICH} has run out of memory {{{{ $value }}}} times",
    "Pod after pod ends for want of memory, and the next one most likely will. Each costs the time to load the model. "
    "Raise the limit, or lower what the training needs.",
)
PENDING = Alert(
    "LoraTrainingPending",
    f'{_PENDING_FOR_30_MINUTES} unless on ({TRAINING}) lora_training_state{{phase!="Pending"}}',
    "warning",
    f"{_WHICH} has not begun for 30 minutes: {{{{ $labels.reason }}}}",
    f"It waits for something that does not come by itself, such as a node, an image or a Secret. {_DESCRIBE} has the "
    "words of the scheduler or the kubelet.",
)
QUEUED = Alert(
    "LoraTrainingQueued",
    # Of the last minutes: when another replica begins to lead, the twelve hours must not begin anew.
    _of('max_over_time(lora_training_state{phase="Queued"}[10m])'),
    "info",
    f"{_WHICH} has waited in its queue for 12 hours",
    "Its queue has had no room for 12 hours. See the quota of the ClusterQueue and who uses it.",
    wait="12h",
)
STORAGE_ERRORS = Alert(
    "LoraStorageErrors",
    f"sum by ({TRAINING}) (increase(lora_trainer_storage_retries_total[15m])) > 10"
    f" or {_ended_pods('StorageUnavailable')} > 0 and {_GOES_ON}",
    "warning",
    f"{_WHICH}: the object store fails again and again",
    "Requests to the store had to be made again more than ten times in 15 minutes, or a pod has given it up. Results "
    "wait on the pod's disk meanwhile; if the store stays away, the pod ends and the next one tries.",
)
UNSAVED = Alert(
    "LoraTrainingUnsaved",
    f"(time() - {_of('lora_training_saved_state_timestamp_seconds')} or {_of('lora_training_active_seconds_total')})"
    f" > 7200 and {_RUNNING} and {_RAN_FOR_TWO_HOURS}",
    "warning",
    f"{_WHICH} has stored no state for {{{{ $value | humanizeDuration }}}}",
    "If its node is lost now, more than two hours have to be trained again. Either the store does not take states, or "
    "`checkpoints` asks for none or for one that seldom.",
)
OPERATOR_DOWN = Alert(
    "LoraOperatorDown",
    # Whoever told anything lately and has no leader now; one that never told anything is only missed as a whole.
    f"(max by ({RELEASE}) (max_over_time(lora_operator_leader[6h])) unless on ({RELEASE}) lora_operator_leader == 1)"
    " or on () absent(lora_operator_leader)",
    "critical",
    f"No operator looks after LoraTrainings{_OF_RELEASE}",
    "No replica that holds the Lease answers the scrape. Running pods go on and lose nothing; nothing new begins, and "
    "no status is written.",
    wait="5m",
)
OPERATOR_ERRORS = Alert(
    "LoraOperatorErrors",
    f'sum by ({RELEASE}) (rate(lora_operator_reconciles_total{{result="error"}}[10m]))'
    f" / sum by ({RELEASE}) (rate(lora_operator_reconciles_total[10m])) > 0.1"
    f' or sum by ({RELEASE}) (increase(lora_operator_errors_total{{kind="bug"}}[10m])) > 0',
    "warning",
    f"The operator's looks at trainings fail{_OF_RELEASE}",
    "More than a tenth of them ended in an error within 10 minutes, or there was an error of ours. "
    "`lora_operator_errors_total` says which kind; the log of the operator has the words.",
    wait="5m",
)
OPERATOR_BEHIND = Alert(
    "LoraOperatorBehind",
    f"sum by ({RELEASE}) (lora_operator_queue_depth) > 100",
    "warning",
    f"{{{{ $value }}}} LoraTrainings wait for the operator{_OF_RELEASE}",
    "It does not keep up: the API server is slow or asks for patience, or the operator has too little CPU.",
    wait="15m",
)

GROUPS = (
    Group(
        "lora-trainings",
        (STALLED, FAILED, DIVERGING, OVERFITTING, OUT_OF_MEMORY, PENDING, QUEUED, STORAGE_ERRORS, UNSAVED),
    ),
    Group("lora-operator", (OPERATOR_DOWN, OPERATOR_ERRORS, OPERATOR_BEHIND)),
)
