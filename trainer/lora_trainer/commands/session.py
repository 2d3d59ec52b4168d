"""What `lora run` and `lora preflight` have around their work: settings, log, progress, metrics, signals, last word.

Imports neither torch nor boto3: a process can be told to stop, and is watched, long before these are there.
"""

import logging
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from lora_api.exit_codes import ExitCode, outcome_of
from lora_api.progress import TerminationMessage
from lora_api.redaction import redact
from lora_trainer.errors import Interrupted, InvalidConfiguration, TrainingError
from lora_trainer.metrics import TrainingMetrics
from lora_trainer.progress import ProgressTracker, serve, write_termination
from lora_trainer.run_log import RunLog, is_interruption, logging_to, record_failure, speak_up_only_in_need
from lora_trainer.settings import Settings
from lora_trainer.stopping import StopRequested, StopSignal, listening
from lora_trainer.watchdog import Watched, watching

logger = logging.getLogger(__name__)

_CRASHED = 1
"""What Python exits with after an error that nobody caught."""
_LOG_CHARACTERS = 2000
_LOGS = Path("logs")
_NO_MEMORY = ("can't allocate memory", "Cannot allocate memory")
"""What torch and the kernel say where Python says MemoryError."""
_OURS = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class Surroundings:
    """What is around one attempt in this process."""

    settings: Settings
    tracker: ProgressTracker
    metrics: TrainingMetrics
    stop: StopSignal
    secrets: tuple[str, ...]
    """What must not be written down."""
    log: RunLog | None

    @property
    def log_file(self) -> Path | None:
        """The log of this attempt."""
        return self.log.path if self.log else None

    def should_stop(self) -> bool:
        """Whether the process was told to stop. Who asks is alive: the question is asked wherever work goes on."""
        self.tracker.alive()
        told = self.stop()
        if told:
            self.metrics.set_stop_requested()
        return told

    def say_end(self, reason: str, message: str) -> None:
        """Leaves the last word of an attempt that ended well."""
        self.tracker.set_reason(reason, message)
        self.leave(self.tracker.termination(ExitCode.COMPLETED, reason=reason, message=message))

    def leave(self, word: TerminationMessage) -> None:
        """Writes the last word where the kubelet looks, if there is such a place."""
        if self.settings.termination_log is None:
            return
        texts = {name: redact(getattr(word, name), self.secrets) for name in ("message", "hint", "log_tail")}
        write_termination(self.settings.termination_log, word.model_copy(update=texts))

    def log_tail(self, *, before_failure: bool = False) -> str:
        """The last lines of the log; those before the traceback of what ended the run, if they are wanted."""
        return self.log.tail(_LOG_CHARACTERS, before_failure=before_failure) if self.log else ""


@contextmanager
def open_surroundings(*, work_dir: Path | None, serve_progress: bool) -> Iterator[Surroundings]:
    """Everything around an attempt, from its first moment to its last word.

    Raises:
        InvalidConfiguration: an environment variable is wrong, or the address cannot be listened on.
        Interrupted: in place of a StopRequested that nobody else took.
    """
    settings = Settings.from_environment()
    settings = replace(settings, work_dir=work_dir or settings.work_dir)
    if settings.ranks is not None and not settings.leads:
        speak_up_only_in_need(settings.ranks.rank)
    tracker, registry = ProgressTracker(), CollectorRegistry()
    secrets = settings.secrets()
    with ExitStack() as stack:
        stop = stack.enter_context(listening(settings.grace_seconds))
        log = _open_log(settings, secrets)
        if log is not None:
            stack.enter_context(logging_to(log, secrets))
        here = Surroundings(settings, tracker, TrainingMetrics(registry), stop, secrets, log)
        stack.enter_context(_last_word(here))
        if serve_progress and settings.listen and settings.leads:
            stack.enter_context(_serving(settings, tracker, registry))
        stack.enter_context(watching(_watched(here)))
        try:
            yield here
        except StopRequested as stop:
            message = "told to stop before the work had begun; nothing was lost"
            raise Interrupted(message, hint="The next attempt begins where this one did.") from stop


def _open_log(settings: Settings, secrets: tuple[str, ...]) -> RunLog | None:
    name = "attempt" if settings.ranks is None or settings.leads else f"process-{settings.ranks.rank}"
    path = settings.work_dir / _LOGS / f"{name}.log"
    try:
        return RunLog(path, secrets)
    except OSError as error:
        # The run itself says what is wrong with the folder as soon as it needs it.
        logger.warning("no log is kept: %s cannot be written: %s", path, error.strerror)
        return None


def _watched(here: Surroundings) -> Watched:
    tracker = here.tracker

    def on_silence(sentence: str) -> None:
        here.metrics.add_stall()
        tracker.stall(sentence)

    def on_end(code: ExitCode, sentence: str) -> None:
        outcome = outcome_of(code)
        here.leave(
            tracker.termination(
                code, reason=outcome.reason, message=sentence, hint=outcome.hint, log_tail=here.log_tail()
            )
        )

    return Watched(tracker.silence_seconds, tracker.patience_seconds, here.stop.is_overdue, on_silence, on_end)


@contextmanager
def _last_word(here: Surroundings) -> Iterator[None]:
    """Leaves the reason of a failure, with its traceback in the log, and lets it pass on."""
    try:
        yield
    except TrainingError as error:
        record_failure(error)
        # The end of the log as people know it; the traceback after it is for us.
        tail = "" if is_interruption(error) else here.log_tail(before_failure=True)
        here.leave(
            here.tracker.termination(
                error.exit_code, reason=error.reason, message=str(error), hint=error.hint, log_tail=tail
            )
        )
        raise
    except Exception as error:
        record_failure(error)
        crash = outcome_of(ExitCode.KILLED if is_out_of_memory(error) else _CRASHED)
        here.leave(
            here.tracker.termination(
                _CRASHED,
                reason=crash.reason,
                message=describe_crash(error),
                hint=crash.hint,
                log_tail=here.log_tail() or traceback.format_exc()[-_LOG_CHARACTERS:],
            )
        )
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this machine, not the GPU, has no more memory to give."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def describe_crash(error: BaseException) -> str:
    """`Type: text (file:line in function)`, with the innermost place of ours."""
    text = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if frame.filename.startswith(_OURS)), None)
    place = place or (frames[-1] if frames else None)
    return f"{text} ({Path(place.filename).name}:{place.lineno} in {place.name})" if place else text


@contextmanager
def _serving(settings: Settings, tracker: ProgressTracker, registry: CollectorRegistry) -> Iterator[None]:
    assert settings.listen is not None
    try:
        server = serve(tracker, registry, settings.listen)
    except OSError as error:
        raise InvalidConfiguration(
            f"LORA_LISTEN_ADDRESS: {settings.listen.host}:{settings.listen.port} cannot be listened on: "
            f"{error.strerror}; choose another port or use --no-serve"
        ) from error
    logger.info("progress and metrics at http://%s:%s", server.address.host, server.address.port)
    try:
        yield
    finally:
        server.close()
