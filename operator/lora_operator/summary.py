"""Words for the columns of `kubectl get`; pure. Used by `status`."""

from lora_api.status import Attempts, Checkpoint, EvaluationStatus, Progress, Summary

LARGE = 1e6
"""Numbers from here on are told by their first digits."""


def derive_summary(
    progress: Progress | None,
    attempts: Attempts | None,
    *,
    best: Checkpoint | None = None,
    evaluation: EvaluationStatus | None = None,
) -> Summary:
    """The columns; what is not known yet is left empty."""
    made = progress or Progress()
    return Summary(
        epoch=_of(made.epoch, made.total_epochs),
        progress=f"{made.percent}%" if made.total_steps else "",
        loss="" if made.loss is None else _loss(made.loss),
        left="" if made.remaining_seconds is None else format_duration(made.remaining_seconds),
        best=_best(best, evaluation),
        step=_of(made.step, made.total_steps),
        rate="" if made.steps_per_second is None else _rate(made.steps_per_second),
        attempts=_attempts(attempts),
    )


def format_duration(seconds: int) -> str:
    """The two largest units: `1h 5m`, `4m 30s`, `12s`."""
    days, hours, minutes, rest = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60, seconds % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), len(parts) - 1)
    shown = [f"{count}{unit}" for count, unit in parts[first : first + 2]]
    return " ".join(shown[:1] if len(shown) == 2 and parts[first + 1][0] == 0 else shown)


def _of(done: int, total: int) -> str:
    return f"{done}/{total}" if total else ""


def _loss(loss: float) -> str:
    """A loss that runs away has more digits than a column."""
    return f"{loss:.4f}" if abs(loss) < LARGE else f"{loss:.2e}"


def _best(best: Checkpoint | None, evaluation: EvaluationStatus | None) -> str:
    """The epoch, and a question mark where that is not sure."""
    if evaluation is None or evaluation.best_epoch is None:
        return "" if best is None else str(best.epoch)
    return f"{evaluation.best_epoch}{'?' if evaluation.confidence == 'Low' else ''}"


def _rate(steps_per_second: float) -> str:
    """Slow runs are told in seconds a step, where the digits are."""
    if 1 / LARGE < steps_per_second < 0.1:
        return f"{1 / steps_per_second:.1f}s/step"
    return f"{steps_per_second:.1f}/s" if abs(steps_per_second) < LARGE else f"{steps_per_second:.0e}/s"


def _attempts(attempts: Attempts | None) -> str:
    if attempts is None or not attempts.number:
        return ""
    words = [str(attempts.number)]
    if attempts.failures:
        words.append(f"{attempts.failures} failed")
    if attempts.preemptions:
        words.append(f"{attempts.preemptions} interrupted")
    return ", ".join(words)
