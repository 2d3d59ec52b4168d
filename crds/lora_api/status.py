"""What the operator answers: conditions, plan, progress, checkpoints, artifacts, failure."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from lora_api import names
from lora_api.base import ApiModel

Message = Annotated[str, Field(max_length=4096)]
Uri = Annotated[str, Field(max_length=1280)]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0, le=9007199254740991)]
Number = float
CheckpointRequest = Annotated[str, Field(max_length=names.MAX_REQUEST_LENGTH)]
Display = Annotated[str, Field(max_length=64)]


class StatusModel(ApiModel):
    """Status is read back from objects of other versions too: unknown fields are dropped, not refused."""

    model_config = ConfigDict(extra="ignore")


class ConditionType(StrEnum):
    """The conditions of a LoraTraining."""

    ACCEPTED = "Accepted"
    DATASET_READY = "DatasetReady"
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    CHECKPOINT_AVAILABLE = "CheckpointAvailable"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FINISHED = "Finished"
    EVALUATED = "Evaluated"
    STALLED = "Stalled"
    """Only there, and True, while nothing goes on without somebody's help: for readers of any kind (kstatus)."""


class Phase(StrEnum):
    """One word for people, derived from the conditions."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Condition(StatusModel):
    """A Kubernetes condition."""

    type: Annotated[str, Field(max_length=64)]
    """What is said to hold or not."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9_])?$")]
    """One CamelCase word for programs."""
    message: Message = ""
    """A sentence for people: what is wrong and what to do."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: Count = 0
    """Generation of the spec that this is about."""


class BucketSummary(StatusModel):
    """One bucket of the plan."""

    width_px: Count
    """Width in px."""
    height_px: Count
    """Height in px."""
    images: Count
    """Pictures in it."""
    samples: Count
    """Pictures times repeats, regularisation included."""
    batches: Count
    """Batches an epoch."""
    crop_loss_percent: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    """Mean share of its pictures' area that is cut off, in percent."""


class Plan(StatusModel):
    """Every derived number of the run."""

    images: Count
    """Training pictures."""
    regularization_images: Count = 0
    """Regularisation pictures."""
    captions_found: Count = 0
    """Pictures with a caption file of their own."""
    captions_missing: Count = 0
    """Pictures without one."""
    samples_per_epoch: Count = 0
    """Pictures times repeats, regularisation included."""
    buckets: Annotated[tuple[BucketSummary, ...], Field(max_length=128)] = ()
    """The buckets that are used."""
    batches_per_epoch: Count
    """Forward passes an epoch."""
    steps_per_epoch: Count
    """Updates of the weights an epoch."""
    epochs: Count = 0
    """Epochs that are run."""
    total_steps: Count
    """Updates of the weights in all."""
    warnings: Annotated[tuple[Message, ...], Field(max_length=16)] = ()
    """What a person should look at."""


class Progress(StatusModel):
    """Where the run is."""

    step: Count = 0
    """Updates made."""
    total_steps: Count = 0
    """Updates planned."""
    epoch: Count = 0
    """Epochs completed."""
    total_epochs: Count = 0
    """Epochs planned."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of the steps that is done."""
    loss: Number | None = None
    """Mean loss of the last epoch's worth of steps."""
    learning_rate: Number | None = None
    """Learning rate of the UNet's adapters at the last step."""
    steps_per_second: Number | None = None
    """Speed over the last steps."""
    remaining_seconds: Count | None = None
    """Estimated time left, in seconds."""
    device_memory_bytes: Count | None = None
    """Most memory of the device in use at once, in bytes; of the process where there is no GPU."""
    updated_time: Time | None = None
    """When the trainer last said so."""


class Checkpoint(StatusModel):
    """An adapter that was verified and stored."""

    epoch: Count
    """Epoch after which it was written."""
    step: Count
    """Step after which it was written."""
    uri: Uri
    """Where it lies."""
    sha256: Annotated[str, Field(max_length=64)]
    """Digest of the file."""
    size_bytes: Count
    """Size of the file in bytes."""
    loss: Number | None = None
    """Mean loss of its epoch."""
    validation_loss: Number | None = None
    """Loss on held-out pictures."""


class SavedState(StatusModel):
    """A resumable state that was stored and read back."""

    step: Count
    """Steps made."""
    epoch: Count = 0
    """Epochs completed."""
    uri: Uri
    """Where it lies."""
    size_bytes: Count = 0
    """Size of its files in bytes."""
    saved_time: Time | None = None
    """When it was complete."""
    save_seconds: Number | None = None
    """How long writing and storing it took, in seconds."""


class MemoryRung(StatusModel):
    """Something that was given up because the GPU's memory was too small."""

    name: Annotated[str, Field(max_length=64)]
    """`HalfBatch`, `GradientCheckpointing` or `EightBitOptimizer`."""
    step: Count = 0
    """Step from which it holds."""
    message: Message = ""
    """What it means."""


class QueueStatus(StatusModel):
    """What the queue says."""

    name: Annotated[str, Field(max_length=253)]
    """LocalQueue."""
    workload: Annotated[str, Field(max_length=253)] = ""
    """Kueue's Workload."""
    reason: Annotated[str, Field(max_length=128)] = ""
    """The queue's own reason, such as `WaitingForQuota`."""
    message: Message = ""
    """The queue's own words."""
    evictions: Count = 0
    """How often the queue stopped this Workload; all of them are in `attempts.preemptions`."""
    evicted_time: Time | None = None
    """When it did so last."""


class Notice(StatusModel):
    """Something that a person should hear of once, such as a state that was passed over."""

    reason: Annotated[str, Field(max_length=64)]
    """One CamelCase word."""
    message: Annotated[str, Field(max_length=1024)]
    """What happened."""


class EvaluationStatus(StatusModel):
    """What is known of the epochs: which is best, and since when it got worse."""

    digest: Annotated[str, Field(max_length=64)] = ""
    """Digest of the `evaluation` of the spec that it was made with; empty while training."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """`Measuring` while training, then `Completed` or `Failed`."""
    message: Message = ""
    """The same as a sentence: which epoch is best, and how sure that is."""
    best_epoch: Count | None = None
    """The epoch to use; None while nothing was measured."""
    usable_from: Count | None = None
    """First epoch that is as good as the best one within the error of the measurement."""
    usable_to: Count | None = None
    """Last epoch that is still better than the base model."""
    overfit_from: Count | None = None
    """Epoch from which held-out pictures got worse while training pictures got better; None: it did not happen."""
    confidence: Literal["High", "Medium", "Low"] | None = None
    """How sure the choice is."""
    held_out_images: Count = 0
    """Pictures that were never trained on."""
    training_loss: Number | None = None
    """Loss of the newest measured epoch on training pictures; 1 is the base model's."""
    drift: Number | None = None
    """How far its predictions for unrelated captions have moved from the base model's; 0 is not at all."""


class Artifacts(StatusModel):
    """What the run made, by URI."""

    adapter_uri: Uri | None = None
    """The final adapter."""
    best_adapter_uri: Uri | None = None
    """A copy of the best epoch's adapter."""
    samples_uri: Uri | None = None
    """The sheet of sample pictures: a row a prompt, a column an epoch."""
    grid_uri: Uri | None = None
    """The epoch × weight grid."""
    report_uri: Uri | None = None
    """The report."""
    manifest_uri: Uri | None = None
    """The manifest that names every file with its digest."""
    logs_uri: Uri | None = None
    """Folder with the log of every attempt."""


class PodCount(StatusModel):
    """Which pods were counted: a pod may be gone before its end was seen, and must count all the same."""

    made: Count = 0
    """Pods of attempts that there have been."""
    paused: Count = 0
    """Pods that ended because the training was paused, or its time was over."""
    evicted: Count = 0
    """Evictions by the queue."""
    begun: bool = False
    """Whether the work of one of them ever began."""
    until: Time | None = None
    """When the newest of them was created."""
    newest: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=16)] = ()
    """Uids of those that were created at that second."""
    resumed: Annotated[str, Field(max_length=64)] = ""
    """Uid of the pod whose first step was last compared with the steps made before."""


class Attempts(StatusModel):
    """What it took."""

    number: Count = 0
    """Attempt that is or was last running; each attempt is a Job."""
    failures: Count = 0
    """Pods that failed and were counted."""
    preemptions: Count = 0
    """Pods that were interrupted and not counted."""
    resumed_from_step: Count | None = None
    """Step from which the running pod went on."""
    lost_steps: Count = 0
    """Steps that had to be made again."""
    active_seconds: Count = 0
    """Running time of attempts, up to `activeSince`, in seconds."""
    active_since: Time | None = None
    """Since when the newest attempt has been running without a pause."""
    waiting_since: Time | None = None
    """Since when the first start has been waited for."""
    pods: PodCount | None = None
    """What the numbers above are counted from."""


class Failure(StatusModel):
    """Why the training failed."""

    reason: Annotated[str, Field(max_length=128)]
    """One CamelCase word for programs."""
    exit_code: Annotated[int, Field(ge=-1, le=255)] | None = None
    """Exit code of the trainer."""
    step: Count | None = None
    """Step at which it failed."""
    message: Message = ""
    """What went wrong."""
    hint: Message = ""
    """What to do about it."""
    log_tail: Annotated[str, Field(max_length=2000)] = ""
    """The last lines of the trainer's log."""


class Summary(StatusModel):
    """Words for `kubectl get`; derived, for people only."""

    epoch: Display = ""
    """Such as `3/10`."""
    progress: Display = ""
    """Such as `31%`."""
    loss: Display = ""
    """Such as `0.0912`."""
    left: Display = ""
    """Such as `1h 5m`."""
    best: Display = ""
    """Epoch that did best on held-out pictures; with `?` where that is not sure."""
    step: Display = ""
    """Such as `310/1000`."""
    rate: Display = ""
    """Such as `2.4/s`."""
    attempts: Display = ""
    """Attempts, failures and preemptions."""


class LoraTrainingStatus(StatusModel):
    """What became of the training; computed from observation, never from memory."""

    observed_generation: Count = 0
    """Generation of the spec that this status is about."""
    phase: Phase | None = None
    """One word for people, derived from the conditions."""
    start_time: Time | None = None
    """When the first attempt was made."""
    completion_time: Time | None = None
    """When the training ended."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
        ),
    ] = ()
    """What holds and what does not, for programs."""
    plan: Plan | None = None
    """Every derived number of the run."""
    progress: Progress | None = None
    """Where the run is."""
    checkpoints: Annotated[tuple[Checkpoint, ...], Field(max_length=20)] = ()
    """The newest adapters, at most 20; all of them are in the store."""
    best_checkpoint: Checkpoint | None = None
    """The adapter that did best on held-out pictures."""
    evaluation: EvaluationStatus | None = None
    """What is known of the epochs."""
    artifacts: Artifacts | None = None
    """What the run made, by URI."""
    saved_state: SavedState | None = None
    """The newest state from which the training can go on."""
    checkpoint_request: CheckpointRequest | None = None
    """The annotation lora-operator.io/checkpoint-requested-at that a stored state has answered."""
    memory_rungs: Annotated[tuple[MemoryRung, ...], Field(max_length=16)] = ()
    """What was given up because the GPU's memory was too small (`retry.onOutOfMemory: Ladder`)."""
    queue: QueueStatus | None = None
    """What the queue of `scheduling.queueName` says."""
    attempts: Attempts | None = None
    """What it took."""
    notices: Annotated[tuple[Notice, ...], Field(max_length=8)] = ()
    """The newest things that the trainer told once; each was an event too."""
    failure: Failure | None = None
    """Why the training failed."""
    summary: Summary | None = None
    """Words for `kubectl get`; derived, for people only."""
