"""What a finished pod means to its Job: pure functions on pods and a podFailurePolicy. Used by the Job controller.

https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
"""

from dataclasses import dataclass

from lora_devcluster.errors import Json


@dataclass(frozen=True)
class Verdict:
    """What to do about a failed pod: `Count`, `Ignore` or `FailJob`, and why."""

    action: str = "Count"
    message: str = ""


def is_finished(pod: Json) -> bool:
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def judge(pod: Json, policy: Json | None) -> Verdict:
    """The verdict of the first rule that matches a failed pod."""
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        words = _exit_code_match(pod, rule.get("onExitCodes")) or _condition_match(pod, rule.get("onPodConditions"))
        if words:
            return Verdict(rule["action"], f"{words} matching {rule['action']} rule at index {index}")
    return Verdict()


def _exit_code_match(pod: Json, pattern: Json | None) -> str:
    if not pattern:
        return ""
    status = pod["status"]
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for container in containers:
        ended = container["state"].get("terminated")
        if not ended or not ended["exitCode"] or pattern.get("containerName") not in (None, container["name"]):
            continue
        if (ended["exitCode"] in pattern["values"]) is (pattern["operator"] == "In"):
            where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            return f"Container {container['name']} for pod {where} failed with exit code {ended['exitCode']}"
    return ""


def _condition_match(pod: Json, patterns: list[Json] | None) -> str:
    present = {(one["type"], one["status"]) for one in pod["status"].get("conditions") or ()}
    for pattern in patterns or ():
        if (pattern["type"], pattern["status"]) in present:
            return f"Pod {pod['metadata']['namespace']}/{pod['metadata']['name']} has condition {pattern['type']}"
    return ""


def parse_indexes(text: str) -> set[int]:
    """The indexes in a compact list such as `0,2-4`."""
    found: set[int] = set()
    for part in text.split(","):
        if part:
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: set[int]) -> str:
    """The compact list of indexes, as in `status.completedIndexes`."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
