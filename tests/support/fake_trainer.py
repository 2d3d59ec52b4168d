"""Stands for the trainer image in scenarios: answers /progress, writes a last word, ends as FAKE_* variables say.

FAKE_OUTPUT: file that stands for the manifest of a whole run: written at a good end; where it lies, nothing is trained.
Who asks for a state by POST /checkpoint is told of one from then on; FAKE_REQUESTS: file with a line for each request.

FAKE_EXIT: exit code. FAKE_EXIT_ONCE: exit code of the first pod only, which leaves a mark in FAKE_MARKS.
FAKE_GATE: file that must exist before it ends. FAKE_TEXT: last word instead of the usual JSON.
FAKE_LOG: what it prints instead of leaving a last word. FAKE_REPORT: JSON that its answers hold besides.
FAKE_STARTS: file with a line for each pod that began. FAKE_DEAF: it does not end when it is told to.
FAKE_NODE: only the pod of this node ends so; those of others end well.
An evaluation takes FAKE_EVALUATION_EXIT and FAKE_EVALUATION_GATE instead; FAKE_EVALUATION: what the end of the training
(as JSON) tells of the epochs.
"""

import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

STEPS, EPOCHS, INTERRUPTED = 10, 2, 75


def report(step: int) -> dict[str, Any]:
    done = {
        "epoch": 1,
        "step": 5,
        "uri": "s3://lora/runs/hina/adapters/hina-000001.safetensors",
        "sha256": "a" * 64,
        "sizeBytes": 7,
    }
    return {
        "reason": "Training",
        "plan": {"images": 4, "batchesPerEpoch": 5, "stepsPerEpoch": 5, "epochs": EPOCHS, "totalSteps": STEPS},
        "progress": {
            "step": step,
            "totalSteps": STEPS,
            "epoch": step * EPOCHS // STEPS,
            "totalEpochs": EPOCHS,
            "percent": step * 100 // STEPS,
            "loss": 0.0912,
            "stepsPerSecond": 2.0,
            "remainingSeconds": (STEPS - step) * 3900,
            "updatedTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
        },
        "checkpoints": [done] if step >= 5 else [],
    }


def count_start() -> None:
    """Leaves a line in FAKE_STARTS."""
    if place := os.environ.get("FAKE_STARTS"):
        with Path(place).open("a") as marks:
            marks.write(".\n")


def starts() -> dict[str, int]:
    place = os.environ.get("FAKE_STARTS")
    return {"starts": len(Path(place).read_text().splitlines())} if place else {}


class Answer(BaseHTTPRequestHandler):
    said: ClassVar[dict[str, Any]] = {}
    saved: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
        if place := os.environ.get("FAKE_REQUESTS"):
            with Path(place).open("a") as marks:
                marks.write(f"{self.path} {request}\n")
        Answer.saved = {"checkpointRequest": request, "savedState": {"step": 5, "uri": "s3://lora/runs/hina/state/5"}}
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        usual = report(5) | starts() | self.saved | json.loads(os.environ.get("FAKE_REPORT", "{}"))
        body = json.dumps(self.said or usual).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def last_word(code: int) -> str:
    words = {
        0: {"message": "2 epochs trained", "artifacts": {"manifestUri": "s3://lora/runs/hina/manifest.json"}},
        65: {"message": "TrainData/50_hina/broken.png does not decode", "hint": "Remove the file."},
    }
    said = words.get(code, {"message": f"ended with {code}"})
    if code == 0 and (found := os.environ.get("FAKE_EVALUATION")):
        said = {**said, "evaluation": json.loads(found)}
    return json.dumps({**report(STEPS if code == 0 else 5), **starts(), **said, "exitCode": code, "step": 5})


def end(code: int) -> None:
    if log := os.environ.get("FAKE_LOG"):
        print(log, file=sys.stderr, flush=True)
        os._exit(code)
    text = os.environ.get("FAKE_TEXT") or last_word(code)
    Path(os.environ["LORA_TERMINATION_LOG"]).write_text(text)
    os._exit(code)


def end_if_trained() -> None:
    """Ends where the output already holds this very run."""
    place = os.environ.get("FAKE_OUTPUT")
    if place and Path(place).exists():
        word = {"exitCode": 0, "reason": "AlreadyTrained", "message": "the output already holds this very run"}
        Path(os.environ["LORA_TERMINATION_LOG"]).write_text(json.dumps(word))
        os._exit(0)


def finish() -> None:
    """The end of a training as FAKE_* variables say."""
    code = planned_exit()
    if code == 0 and (place := os.environ.get("FAKE_OUTPUT")):
        Path(place).touch()
    end(code)


def planned_exit() -> int:
    if os.environ.get("FAKE_NODE") not in {None, os.environ.get("LORA_NODE_RANK")}:
        return 0
    once = os.environ.get("FAKE_EXIT_ONCE")
    if once:
        mark = Path(os.environ["FAKE_MARKS"])
        if not mark.exists():
            mark.touch()
            return int(once)
    return int(os.environ.get("FAKE_EXIT", "0"))


def check() -> None:
    """The check of the data: FAKE_CHECK is its exit code, FAKE_CHECK_REASON the reason of its last word."""
    code = int(os.environ.get("FAKE_CHECK", "0"))
    said = json.loads(last_word(code)) if code else {"plan": report(0)["plan"], "message": "the data can train"}
    word = {"exitCode": code, "reason": os.environ.get("FAKE_CHECK_REASON", "Verified")}
    word |= {name: said[name] for name in ("plan", "message", "hint") if name in said and not (code and name == "plan")}
    Path(os.environ["LORA_TERMINATION_LOG"]).write_text(os.environ.get("FAKE_TEXT") or json.dumps(word))
    os._exit(code)


EVALUATING = {"reason": "Evaluating", "message": "grid 1 of 2"}
EVALUATED = {
    "reason": "Evaluated",
    "evaluation": {"digest": "its own", "reason": "Completed", "message": "epoch 2 is best", "bestEpoch": 2},
    "artifacts": {"gridUri": "s3://lora/runs/hina/evaluation/grid.png"},
}


def evaluate() -> None:
    """The evaluation of a finished run."""
    serve(EVALUATING)
    wait_for(os.environ.get("FAKE_EVALUATION_GATE"))
    code = int(os.environ.get("FAKE_EVALUATION_EXIT", "0"))
    word = {"exitCode": code, "message": f"ended with {code}", **(EVALUATED if code == 0 else {})}
    Path(os.environ["LORA_TERMINATION_LOG"]).write_text(json.dumps(word))
    os._exit(code)


def serve(said: dict[str, Any]) -> None:
    """Answers with this, or as a training does."""
    Answer.said = said
    host, port = os.environ["LORA_LISTEN_ADDRESS"].rsplit(":", 1)
    threading.Thread(target=HTTPServer((host, int(port)), Answer).serve_forever, daemon=True).start()


def wait_for(gate: str | None) -> None:
    while gate and not Path(gate).exists():
        time.sleep(0.02)


def main() -> None:
    deaf = os.environ.get("FAKE_DEAF")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: end(INTERRUPTED))
    if "spec" not in Path(sys.argv[2]).read_text():
        end(64)
    if sys.argv[1] == "evaluate":
        evaluate()
    end_if_trained()
    if sys.argv[1] == "preflight":
        check()
    count_start()
    serve({})
    wait_for(os.environ.get("FAKE_GATE"))
    finish()


if __name__ == "__main__":
    main()
