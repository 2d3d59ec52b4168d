"""What the trainer is doing, kept for whoever asks: the operator over HTTP, the kubelet at the end.

`run` and `loop` tell the tracker; the server thread answers GET `/progress` (JSON), `/metrics` (Prometheus) and
`/healthz`, and takes requests for a state by POST `/checkpoint`; `write_termination` leaves the last word.
"""

import json
import logging
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from lora_api import names
from lora_api.progress import ProgressReport, TerminationMessage
from lora_api.status import Artifacts, Checkpoint, EvaluationStatus, MemoryRung, Notice, Plan, Progress, SavedState
from lora_trainer.pulse import Pulse
from lora_trainer.settings import Address

logger = logging.getLogger(__name__)

_KEPT_CHECKPOINTS = 20
_WINDOW_STEPS = 32
_KEPT_NOTICES = 8
_MESSAGE_CHARACTERS = 4096
_NOTICE_CHARACTERS = 1024
_LOG_CHARACTERS = 2000
_REQUEST_BYTES = 4096
_LENGTH_DIGITS = 9
STALLED = "Stalled"


@dataclass(frozen=True)
class _Start:
    """When and where steps began to be made in this process."""

    time: float
    step: int


class ProgressTracker:
    """Holds the newest ProgressReport; every method may be called from any thread."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], datetime] | None = None
    ) -> None:
        self._lock = threading.Lock()
        self._report = ProgressReport()
        self._clock = clock
        self._now = now or (lambda: datetime.now(UTC))
        self._pulse = Pulse(clock)
        self._active_time = self._now()
        self._before_stall: tuple[str, str] | None = None
        self._request, self._has_request = "", False
        self._start: _Start | None = None
        self._window: deque[tuple[float, int]] = deque(maxlen=_WINDOW_STEPS)
        self._device_memory_bytes: int | None = None

    def snapshot(self) -> ProgressReport:
        """The report as it is now."""
        with self._lock:
            signs = {
                "active_time": _time(self._active_time),
                "patience_seconds": math.ceil(self._pulse.patience_seconds()),
            }
            return self._report.model_copy(update=signs)

    def set_reason(self, reason: str, message: str = "") -> None:
        """Says what is being done, such as `Downloading`; a pause of the training does not slow its rate."""
        with self._lock:
            self._window.clear()
            self._pulse.begin(reason)
            self._active_time, self._before_stall = self._now(), None
            self._update(reason=reason, message=message[:_MESSAGE_CHARACTERS])

    def alive(self) -> None:
        """Notes a sign of life: a batch, a picture, a file, bytes. After a stall the work goes on under its name."""
        with self._lock:
            self._beat()

    def set_stall_seconds(self, seconds: float | None) -> None:
        """Says which silence is a stall (`limits.stallSeconds`); None: found from what is usual."""
        with self._lock:
            self._pulse.stall_seconds = seconds

    def silence_seconds(self) -> float:
        """Time since the last sign of life."""
        with self._lock:
            return self._pulse.silence_seconds()

    def patience_seconds(self) -> float:
        """Silence for longer than this is unusual for what is being done."""
        with self._lock:
            return self._pulse.patience_seconds()

    def stall(self, message: str) -> None:
        """Says that there has been no sign of life for too long; the next one takes it back."""
        with self._lock:
            self._before_stall = self._before_stall or (self._report.reason, self._report.message)
            sentence = f"{self._before_stall[0]}: {message}"
            self._update(reason=STALLED, message=sentence[:_MESSAGE_CHARACTERS])
            self._add_notice(STALLED, sentence)

    def set_plan(self, plan: Plan) -> None:
        """Says how long the run will be."""
        with self._lock:
            self._update(plan=plan)

    def start_steps(self, step: int, *, epoch: int) -> None:
        """Says that training begins after `step` steps and `epoch` completed epochs; needs the plan."""
        with self._lock:
            self._beat()
            self._start = _Start(self._clock(), step)
            self._window.clear()
            self._window.append((self._start.time, step))
            self._set_progress(step, epoch)

    def step(self, step: int, *, epoch: int, loss: float | None, learning_rate: float | None) -> Progress:
        """Notes that `step` steps and `epoch` epochs are done; gives the progress with rate and time left."""
        with self._lock:
            self._beat()
            self._window.append((self._clock(), step))
            return self._set_progress(step, epoch, loss=loss, learning_rate=learning_rate)

    def set_device_memory(self, peak_bytes: int) -> None:
        """Says how much memory of the device was in use at once at most; told with the next step."""
        with self._lock:
            self._device_memory_bytes = peak_bytes

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Notes an adapter that lies verified in the store; the newest 20 are kept."""
        with self._lock:
            others = [known for known in self._report.checkpoints if known.uri != checkpoint.uri]
            self._update(checkpoints=(*others, checkpoint)[-_KEPT_CHECKPOINTS:])

    def set_evaluation(self, evaluation: EvaluationStatus) -> None:
        """Says what is known of the epochs."""
        with self._lock:
            self._update(evaluation=evaluation)

    def set_best_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Says which adapter did best on held-out pictures."""
        with self._lock:
            self._update(best_checkpoint=checkpoint)

    def set_artifacts(self, artifacts: Artifacts) -> None:
        """Says what lies in the store."""
        with self._lock:
            self._update(artifacts=artifacts)

    def set_resumed_from(self, step: int) -> None:
        """Says from which step this process went on."""
        with self._lock:
            self._update(resumed_from_step=step)

    def set_starts(self, starts: int) -> None:
        """Says how many processes have written to the output so far, this one included."""
        with self._lock:
            self._update(starts=starts)

    def set_saved_state(self, state: SavedState, *, answers: str = "") -> None:
        """Says what the newest state is that lies verified in the store; `answers`: the request it was saved for."""
        with self._lock:
            self._update(saved_state=state)
            if answers:
                self._update(checkpoint_request=answers)
                self._has_request = self._has_request and answers != self._request

    @property
    def open_request(self) -> str:
        """The state that was asked for and is not stored yet; empty: none."""
        with self._lock:
            return self._request if self._has_request else ""

    def request_state(self, request: str) -> None:
        """Somebody asks for a state after the next step, by any text; the same one again changes nothing."""
        with self._lock:
            if request not in {self._request, self._report.checkpoint_request}:
                self._request, self._has_request = request, True

    def refuse_request(self, message: str) -> None:
        """Says why the state that was asked for is not saved."""
        with self._lock:
            self._has_request = False
            self._add_notice("CheckpointRefused", message)

    def set_memory_rungs(self, rungs: tuple[MemoryRung, ...]) -> None:
        """Says what was given up for memory."""
        with self._lock:
            self._update(memory_rungs=rungs)

    def set_dataset_digest(self, digest: str) -> None:
        """Says which pictures and captions these are."""
        with self._lock:
            self._update(dataset_digest=digest)

    def add_notice(self, reason: str, message: str) -> None:
        """Tells a person something once; the newest 8 are kept."""
        with self._lock:
            self._add_notice(reason, message)

    def termination(
        self, exit_code: int, *, reason: str, message: str, hint: str = "", log_tail: str = ""
    ) -> TerminationMessage:
        """The last word: the report, why it ends, what to do about it, and how the log ends."""
        report = self.snapshot()
        fields: dict[str, Any] = {name: getattr(report, name) for name in type(report).model_fields}
        fields |= {"reason": reason, "message": message[:_MESSAGE_CHARACTERS], "hint": hint[:_MESSAGE_CHARACTERS]}
        step = report.progress.step if report.progress else None
        return TerminationMessage(exit_code=int(exit_code), step=step, log_tail=log_tail[-_LOG_CHARACTERS:], **fields)

    def end_steps(self) -> None:
        """No step follows, also where fewer were made than planned."""
        with self._lock:
            if self._report.progress is not None:
                self._update(progress=self._report.progress.model_copy(update={"remaining_seconds": 0}))

    def _beat(self) -> None:
        self._pulse.beat()
        self._active_time = self._now()
        if self._before_stall is not None:
            reason, message = self._before_stall
            self._before_stall = None
            self._update(reason=reason, message=message)

    def _add_notice(self, reason: str, message: str) -> None:
        notice = Notice(reason=reason, message=message[:_NOTICE_CHARACTERS])
        self._update(notices=(*self._report.notices, notice)[-_KEPT_NOTICES:])

    def _update(self, **changes: Any) -> None:
        self._report = self._report.model_copy(update=changes)

    def _set_progress(
        self, step: int, epoch: int, *, loss: float | None = None, learning_rate: float | None = None
    ) -> Progress:
        total = self._report.plan.total_steps if self._report.plan else step
        progress = Progress(
            step=step,
            total_steps=total,
            epoch=epoch,
            total_epochs=self._report.plan.epochs if self._report.plan else 0,
            percent=100 * step // total if total else 0,
            loss=loss,
            learning_rate=learning_rate,
            steps_per_second=self._steps_per_second(),
            remaining_seconds=self._remaining_seconds(step, total),
            device_memory_bytes=self._device_memory_bytes,
            updated_time=_time(self._now()),
        )
        self._update(progress=progress)
        return progress

    def _steps_per_second(self) -> float | None:
        """Speed over the window; before it holds two times, the last known speed."""
        if len(self._window) >= 2:
            (first_time, first_step), (last_time, last_step) = self._window[0], self._window[-1]
            if last_time > first_time:
                return (last_step - first_step) / (last_time - first_time)
        return self._report.progress.steps_per_second if self._report.progress else None

    def _remaining_seconds(self, step: int, total: int) -> int | None:
        """Time left at the average speed since the start: pauses for saving and sampling count."""
        if self._start is None or step <= self._start.step:
            return None
        passed = self._clock() - self._start.time
        return round(passed / (step - self._start.step) * (total - step))


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def write_termination(path: Path, message: TerminationMessage) -> None:
    """Leaves the last word where the kubelet looks; the file is a mount and is written in place."""
    path.write_bytes(message.to_bytes())


class ProgressServer:
    """Answers in a thread until closed."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="progress-server", daemon=True)
        self._thread.start()

    @property
    def address(self) -> Address:
        """Where it listens; the port that was given when 0 was asked for."""
        host, port = self._server.server_address[:2]
        return Address(str(host), int(port))

    def close(self) -> None:
        """Stops listening and waits for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(tracker: ProgressTracker, registry: CollectorRegistry, address: Address) -> ProgressServer:
    """A running server at `address`. Raises OSError when it cannot be had."""

    class Handler(_Handler):
        pages = {
            "/progress": ("application/json", lambda: _progress_json(tracker)),
            "/metrics": (CONTENT_TYPE_LATEST, lambda: generate_latest(registry)),
            "/healthz": ("text/plain; charset=utf-8", lambda: b"ok\n"),
        }
        request_state = staticmethod(tracker.request_state)

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        daemon_threads = True

    return ProgressServer(Server((address.host, address.port), Handler))


def _progress_json(tracker: ProgressTracker) -> bytes:
    return tracker.snapshot().model_dump_json(by_alias=True, exclude_none=True).encode()


def _parse_request(content: bytes) -> str:
    """The text of `{"request": "<text>"}`. Raises ValueError."""
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    text = document.get("request") if isinstance(document, dict) else None
    if not isinstance(text, str) or not 1 <= len(text) <= names.MAX_REQUEST_LENGTH:
        raise ValueError(f'must be {{"request": TEXT}} with 1 to {names.MAX_REQUEST_LENGTH} characters of text')
    text.encode()  # Half a character, which JSON can hold, would break every report in which it is told.
    return text


class _Handler(BaseHTTPRequestHandler):
    pages: dict[str, tuple[str, Callable[[], bytes]]]
    request_state: Callable[[str], None]
    timeout = 10

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(404, "known are " + ", ".join(sorted(self.pages)))
            return
        content_type, render = page
        body = render()
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        if self.path.partition("?")[0] != "/checkpoint":
            self.send_error(404, "known is /checkpoint")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > _LENGTH_DIGITS or int(length) > _REQUEST_BYTES:
            self.send_error(413, f"Content-Length must be given, at most {_REQUEST_BYTES}")
            return
        try:
            request = _parse_request(self.rfile.read(int(length)))
        except ValueError as error:
            self.send_error(400, str(error))
            return
        self.request_state(request)
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        # A scrape every few seconds is not worth a line of INFO.
        logger.debug("progress server: %s", format % args)
