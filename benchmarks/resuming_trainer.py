"""Stands for the trainer in benchmarks of the operator: keeps a state across its pods, and waits at a gate.

STATE: JSON file that stands for the states in the bucket. GATE: file that must exist before it ends. Told to stop, it
saves step 5 and exits with 75; at the end it has made 10 steps.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

MIDDLE, END = 5, 10
PLAN = {"images": 4, "batchesPerEpoch": 5, "stepsPerEpoch": 5, "epochs": 2, "totalSteps": END}
EVALUATED = {"reason": "Completed", "message": "epoch 2 is best", "bestEpoch": 2}
INTERRUPTED = 75


def read_state(file: Path) -> dict[str, int]:
    """How often a trainer has started, and the step that was saved last."""
    state: dict[str, int] = json.loads(file.read_text()) if file.exists() else {"starts": 0, "step": 0}
    return state


def write_state(file: Path, state: dict[str, int]) -> None:
    """Replaces the state as a whole."""
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(state))
    temporary.replace(file)


def report(state: dict[str, int], step: int) -> dict[str, Any]:
    """What it says of itself."""
    resumed = {"resumedFromStep": state["step"]} if state["step"] else {}
    progress = {"step": step, "totalSteps": END, "epoch": step // 5, "totalEpochs": 2, "percent": step * 10}
    return {"reason": "Training", "plan": PLAN, "progress": progress, "starts": state["starts"], **resumed}


def end(code: int, word: dict[str, Any]) -> None:
    """Leaves a last word."""
    Path(os.environ["LORA_TERMINATION_LOG"]).write_text(json.dumps({"exitCode": code, **word}))
    os._exit(code)


def train(file: Path, gate: Path) -> None:
    """Runs to the end, or until it is told to stop."""
    state = read_state(file)
    state = {**state, "starts": state["starts"] + 1}

    def stop(*_: object) -> None:
        write_state(file, {**state, "step": MIDDLE})
        end(INTERRUPTED, {**report(state, MIDDLE), "step": MIDDLE, "message": "saved"})

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(report(state, MIDDLE)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    signal.signal(signal.SIGTERM, stop)
    write_state(file, state)
    host, port = os.environ["LORA_LISTEN_ADDRESS"].rsplit(":", 1)
    threading.Thread(target=HTTPServer((host, int(port)), Answer).serve_forever, daemon=True).start()
    while not gate.exists():
        time.sleep(0.02)
    artifacts = {"manifestUri": "s3://runs/hina/manifest.json"}
    end(0, {**report(state, END), "step": END, "message": "trained", "artifacts": artifacts})


def main() -> None:
    """`preflight FILE`, `run FILE` or `evaluate FILE`."""
    if sys.argv[1] == "preflight":
        end(0, {"reason": "Verified", "plan": PLAN, "message": "the data can train"})
    if sys.argv[1] == "evaluate":
        end(0, {"reason": "Evaluated", "evaluation": EVALUATED})
    train(Path(os.environ["STATE"]), Path(os.environ["GATE"]))


if __name__ == "__main__":
    main()
