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
    """Whether it holds; Unknown: nobody can say yet."""
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9_])?$")]
    """One CamelCase word for programs."""
    message: Message = ""
    """A sentence for people: why, and what to do about it."""
    last_transition_time: Time
    """When `status` changed last; reason and message may be newer."""
    observed_generation: Count = 0
    """Generation of the spec that this is about."""


class BucketSummary(StatusModel):
    """One bucket of the plan."""

    width_px: Count
    """Width of its pictures as they are trained on, in px."""
    height_px: Count
    """Height of its pictures as they are trained on, in px."""
    images: Count
    """Pictures in it, regularisation included."""
    samples: Count
    """Draws an epoch: pictures times repeats, and as many draws of regularisation pictures as fall to it."""
    batches: Count
    """Batches an epoch, over all GPUs."""
    crop_loss_percent: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    """Mean share of its pictures' area that is cut off, in percent."""


class Plan(StatusModel):
    """Every derived number of the run."""

    images: Count
    """Pictures that are trained on; those that are held out are not among them."""
    regularization_images: Count = 0
    """Regularisation pictures."""
    captions_found: Count = 0
    """Pictures of both kinds that have a caption file of their own."""
    captions_missing: Count = 0
    """Pictures of both kinds that have none."""
    samples_per_epoch: Count = 0
    """Draws an epoch: pictures times repeats, and as many draws of regularisation pictures if there are any."""
    buckets: Annotated[tuple[BucketSummary, ...], Field(max_length=128)] = ()
    """The buckets that are used; where there are more, the largest."""
    batches_per_epoch: Count
    """Forward passes an epoch, over all GPUs."""
    steps_per_epoch: Count
    """Updates of the weights an epoch."""
    epochs: Count = 0
    """Epochs planned; `training.maxSteps` may cut the last one, and `evaluation.earlyStop` may end it all sooner."""
    total_steps: Count
    """Updates of the weights planned in all."""
    warnings: Annotated[tuple[Message, ...], Field(max_length=16)] = ()
    """What a person should look at."""


class Progress(StatusModel):
    """Where the run is."""

    step: Count = 0
    """Updates of the weights made."""
    total_steps: Count = 0
    """Updates of the weights planned."""
    epoch: Count = 0
    """Epochs completed."""
    total_epochs: Count = 0
    """Epochs planned."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of the steps that is done; 100 after success, also if `evaluation.earlyStop` made it fewer steps."""
    loss: Number | None = None
    """Mean loss of the last epoch's worth of steps."""
    learning_rate: Number | None = None
    """Learning rate of the UNet's adapters at the last step; of the text encoder's where only that is trained."""
    steps_per_second: Number | None = None
    """Speed over the last steps, in steps per second."""
    remaining_seconds: Count | None = None
    """Estimated time that the steps left take, in seconds; absent before the first step, and after a failure."""
    device_memory_bytes: Count | None = None
    """Most memory of the device in use at once, in bytes; of the process where there is no GPU."""
    updated_time: Time | None = None
    """When the trainer made the last step that it told of."""


class Checkpoint(StatusModel):
    """An adapter that was verified and stored."""

    epoch: Count
    """Epoch after which it was written."""
    step: Count
    """Step after which it was written."""
    uri: Uri
    """Where it lies."""
    sha256: Annotated[str, Field(max_length=64)]
    """SHA-256 of the file, in hexadecimal."""
    size_bytes: Count
    """Size of the file in bytes."""
    loss: Number | None = None
    """Mean training loss of its epoch."""
    validation_loss: Number | None = None
    """Loss on held-out pictures after that epoch; 1 is the base model's. Absent: it was not measured."""


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
    """Kueue's LocalQueue."""
    workload: Annotated[str, Field(max_length=253)] = ""
    """Kueue's Workload."""
    reason: Annotated[str, Field(max_length=128)] = ""
    """The queue's own reason, such as `WaitingForQuota`."""
    message: Message = ""
    """The queue's own words."""
    evictions: Count = 0
    """How often the queue stopped this Workload; `attempts.preemptions` counts these, and those of earlier ones."""
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
    """Digest of the `spec.evaluation` that it was made with; empty until it has ended."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """`Measuring` until it has ended, then `Completed` or `Failed`."""
    message: Message = ""
    """The same as a sentence: which epoch is best, and how sure that is; or why it failed."""
    best_epoch: Count | None = None
    """The epoch to use; absent while nothing was measured."""
    usable_from: Count | None = None
    """First epoch that is as good as the best one within the error of the measurement."""
    usable_to: Count | None = None
    """Last epoch that is still better than the base model."""
    overfit_from: Count | None = None
    """Epoch from which held-out pictures got worse while training pictures got better; absent: that did not
    happen."""
    confidence: Literal["High", "Medium", "Low"] | None = None
    """How sure the choice is."""
    held_out_images: Count = 0
    """Pictures that were never trained on."""
    training_loss: Number | None = None
    """Loss of the newest measured epoch on as many training pictures; 1 is the base model's."""
    drift: Number | None = None
    """How far the newest measured epoch's predictions for unrelated captions have moved from the base model's; 0 is not
    at all."""


class Artifacts(StatusModel):
    """What the run made, by URI."""

    adapter_uri: Uri | None = None
    """The final adapter: that of the last epoch trained."""
    best_adapter_uri: Uri | None = None
    """A copy of the best epoch's adapter."""
    samples_uri: Uri | None = None
    """The sheet of sample pictures: a row a prompt, a column an epoch."""
    grid_uri: Uri | None = None
    """The epoch × weight grid."""
    report_uri: Uri | None = None
    """The report of the evaluation (HTML)."""
    manifest_uri: Uri | None = None
    """The manifest that names every file with its digest."""
    logs_uri: Uri | None = None
    """Folder with a log of every start."""


class PodCount(StatusModel):
    """Which pods were counted: one may be gone before its end was seen, and must count all the same. Of pods that train
    together (`parallelism.nodes`) the first stands for all."""

    made: Count = 0
    """Pods that have trained or were to; those that only checked the data or evaluate are not among them."""
    paused: Count = 0
    """Those of them that ended because the training was paused or cancelled, or its time was over."""
    evicted: Count = 0
    """Evictions by the queue."""
    begun: bool = False
    """Whether the work of one of them ever began."""
    until: Time | None = None
    """When the newest of them was created."""
    newest: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=16)] = ()
    """Uids of those that were created in that second, the newest 16."""
    resumed: Annotated[str, Field(max_length=64)] = ""
    """Uid of the pod whose first step was last compared with the steps made before."""


class Attempts(StatusModel):
    """What it took."""

    number: Count = 0
    """Number of the newest attempt, 0 before the first. Each is a Job, `<name>-a<number>`, which may start pod after
    pod: after a failure or an interruption its next pod goes on. The next attempt is made where that Job cannot: when
    it is gone, or when several pods train together."""
    failures: Count = 0
    """Failures so far, of which `retry.maxFailures` are retried: one for each pod that failed; of pods that train
    together, one for each attempt that did."""
    preemptions: Count = 0
    """Interruptions so far, which never use up `retry.maxFailures`: one for each pod that was preempted, evicted, lost
    with its node or told to stop (of pods that train together, for each attempt), and for each eviction by the queue.
    Pauses do not count."""
    resumed_from_step: Count | None = None
    """Step of the state that the newest pod that trained went on from; absent: it began at the first step."""
    lost_steps: Count = 0
    """Steps that were made more than once, because no state after them was stored."""
    active_seconds: Count = 0
    """Running time up to `activeSince`, over all attempts, in seconds; pauses and waiting in a queue are not in it,
    waiting for a node is."""
    active_since: Time | None = None
    """Since when the newest attempt has been running; absent in a pause, in a queue and after the end."""
    waiting_since: Time | None = None
    """Since when the first start has been waited for (`scheduling.startDeadlineSeconds`); absent once it has started,
    while the data are checked, and in a pause."""
    pods: PodCount | None = None
    """What the numbers above are counted from."""


class Failure(StatusModel):
    """Why the training did not succeed."""

    reason: Annotated[str, Field(max_length=128)]
    """One CamelCase word for programs."""
    exit_code: Annotated[int, Field(ge=-1, le=255)] | None = None
    """Exit code of the trainer; absent where no process of it was the cause."""
    step: Count | None = None
    """Step that it had come to."""
    message: Message = ""
    """What went wrong."""
    hint: Message = ""
    """What to do about it."""
    log_tail: Annotated[str, Field(max_length=2000)] = ""
    """The last lines of the trainer's log, without secrets."""


class Summary(StatusModel):
    """Words for `kubectl get`; derived, for people only."""

    epoch: Display = ""
    """Epochs completed and planned, such as `3/10`."""
    progress: Display = ""
    """Share of the steps that is done, such as `31%`."""
    loss: Display = ""
    """Mean loss of the last epoch's worth of steps, such as `0.0912`."""
    left: Display = ""
    """Estimated time left, such as `1h 5m`; empty after a failure."""
    best: Display = ""
    """Best epoch by `spec.evaluation`, with `?` where that is not sure."""
    step: Display = ""
    """Steps made and planned, such as `310/1000`."""
    rate: Display = ""
    """Speed, such as `2.4/s` or `12.5s/step`."""
    attempts: Display = ""
    """Attempts, failures and interruptions, such as `2, 1 failed, 3 interrupted`."""


class LoraTrainingStatus(StatusModel):
    """What became of the training; computed from observation, never from memory."""

    observed_generation: Count = 0
    """Generation of the spec that this status is about; 0: no operator has looked at the object yet."""
    phase: Phase | None = None
    """One word for people, derived from the conditions."""
    start_time: Time | None = None
    """When the first Job was created, also if that only checked the data."""
    completion_time: Time | None = None
    """When the training ended, well or not; an evaluation after the end does not change it."""
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
    """The newest adapters, by step; all of them are in the store."""
    best_checkpoint: Checkpoint | None = None
    """The adapter of the best epoch."""
    evaluation: EvaluationStatus | None = None
    """What is known of the epochs."""
    artifacts: Artifacts | None = None
    """What the run made, by URI."""
    saved_state: SavedState | None = None
    """The newest state from which the training can go on."""
    checkpoint_request: CheckpointRequest | None = None
    """Text of the annotation lora-operator.io/checkpoint-requested-at that a stored state has answered last."""
    memory_rungs: Annotated[tuple[MemoryRung, ...], Field(max_length=16)] = ()
    """What was given up because the GPU's memory was too small (`retry.onOutOfMemory: Ladder`)."""
    queue: QueueStatus | None = None
    """What the queue says that decides about the Job (`scheduling.queueName`); absent: none does."""
    attempts: Attempts | None = None
    """What it took."""
    notices: Annotated[tuple[Notice, ...], Field(max_length=8)] = ()
    """The newest things that the trainer told once; each was an event too."""
    failure: Failure | None = None
    """Why the training failed, or that it was cancelled; absent otherwise."""
    summary: Summary | None = None
    """Words for `kubectl get`; derived, for people only."""
