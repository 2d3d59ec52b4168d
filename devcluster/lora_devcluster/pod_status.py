"""A pod's status from the states of its containers: pure functions, as the kubelet computes them."""

from lora_devcluster import clock
from lora_devcluster.conditions import set_condition
from lora_devcluster.errors import Json


def waiting(reason: str, message: str = "") -> Json:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def running() -> Json:
    return {"running": {"startedAt": clock.timestamp()}}


def terminated(code: int, *, reason: str, message: str, started: str, container_id: str) -> Json:
    ended: Json = {
        "exitCode": code,
        "reason": reason,
        "startedAt": started,
        "finishedAt": clock.timestamp(),
        "containerID": container_id,
    }
    return {"terminated": {**ended, "message": message} if message else ended}


def new_status(container: Json, reason: str) -> Json:
    """The status of a container that has not started."""
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": False,
        "started": False,
        "restartCount": 0,
        "state": waiting(reason),
        "lastState": {},
    }


def _ended(status: Json) -> Json | None:
    ended: Json | None = status["state"].get("terminated")
    return ended


def is_initialized(statuses: list[Json]) -> bool:
    return all((_ended(status) or {"exitCode": 1})["exitCode"] == 0 for status in statuses)


def phase(inits: list[Json], mains: list[Json], *, final: bool) -> str:
    """The pod's phase; `final` says that nothing will be started any more."""
    started = [status for status in mains if "waiting" not in status["state"] or status["lastState"]]
    if not final:
        return "Running" if started and is_initialized(inits) else "Pending"
    codes = [(_ended(status) or {"exitCode": 1})["exitCode"] for status in [*inits, *mains]]
    return "Failed" if any(codes) else "Succeeded"


def set_pod_conditions(status: Json, inits: list[Json], mains: list[Json]) -> None:
    """Sets Initialized, ContainersReady and Ready, in place."""
    incomplete = [one["name"] for one in inits if (_ended(one) or {"exitCode": 1})["exitCode"]]
    unready = [one["name"] for one in mains if not one["ready"]]
    set_condition(
        status, "PodReadyToStartContainers", "False" if status["phase"] in ("Succeeded", "Failed") else "True"
    )
    if incomplete:
        words = f"containers with incomplete status: [{' '.join(incomplete)}]"
        set_condition(status, "Initialized", "False", "ContainersNotInitialized", words)
    else:
        set_condition(status, "Initialized", "True", *(["PodCompleted"] if status["phase"] == "Succeeded" else []))
    for kind in ("ContainersReady", "Ready"):
        if status["phase"] in ("Succeeded", "Failed"):
            reason = "PodCompleted" if status["phase"] == "Succeeded" else "PodFailed"
            set_condition(status, kind, "False", reason)
        elif unready:
            words = f"containers with unready status: [{' '.join(unready)}]"
            set_condition(status, kind, "False", "ContainersNotReady", words)
        else:
            set_condition(status, kind, "True")
