"""Saves and restores a stage of the training, and logs its pace. Used by every stage."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)


class Checkpoint:
    """One file that holds the step and the state_dict of every named part, replaced whole every two minutes."""

    def __init__(self, path: Path, seconds: float = 120) -> None:
        self.path = path
        self.seconds = seconds
        self._saved = time.monotonic()
        self._reported = time.monotonic()

    def restore(self, parts: dict[str, Any]) -> int:
        """Loads every part from the file and returns the steps done, 0 without a file."""
        if not self.path.exists():
            return 0
        saved = torch.load(self.path, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        log.info("%s: resumed at step %d", self.path.stem, saved["step"])
        return int(saved["step"])

    def save(self, step: int, parts: dict[str, Any]) -> None:
        """Writes the file beside its place and renames it, so that a kill leaves the old one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        torch.save({"step": step} | {name: part.state_dict() for name, part in parts.items()}, draft)
        draft.replace(self.path)
        self._saved = time.monotonic()

    def report(self, step: int, steps: int, parts: dict[str, Any], **figures: float) -> None:
        """Logs the figures every 50 steps; saves when two minutes have passed and at the last step."""
        if step % 50 == 0:
            pace = (time.monotonic() - self._reported) / 50
            self._reported = time.monotonic()
            shown = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
            log.info("%s: step %d of %d, %s, %.3f s/step", self.path.stem, step, steps, shown, pace)
        if step == steps or time.monotonic() - self._saved > self.seconds:
            self.save(step, parts)


def set_cosine_rate(optimizer: torch.optim.Optimizer, step: int, *, steps: int, peak: float) -> None:
    """Linear warm-up to `peak` over the first twentieth of `steps`, then half a cosine down to nothing."""
    done = step / steps
    rate = peak * min((step + 1) / (0.05 * steps), 0.5 * (1 + math.cos(math.pi * done)), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
