"""ResourceQuota admission for pods, with the words of the real plugin. Used by `pod_admission`.

https://kubernetes.io/docs/concepts/policy/resource-quotas/; the words are those of apiserver/pkg/admission/plugin/
resourcequota. Counts pods and what they request and may use; scopes and other objects are not counted.
"""

from collections import defaultdict
from fractions import Fraction

from lora_devcluster.errors import Json, forbidden_request
from lora_devcluster.job_policy import is_finished
from lora_devcluster.quantity import parse
from lora_devcluster.store import Store

_COUNTS = ("pods", "count/pods")
_MUST_BE_GIVEN = ("cpu", "memory")
"""Where a quota limits these, every container has to name them."""

Amounts = dict[str, Fraction]


def check_quota(store: Store, pod: Json) -> None:
    """Admits the pod if every ResourceQuota of its namespace has room for it.

    Raises:
        ApiError: 403 with the quota's name and its numbers.
    """
    meta = pod["metadata"]
    quotas = store.objects("", "resourcequotas", meta["namespace"])
    if not quotas:
        return
    live = [_amounts(one) for one in store.objects("", "pods", meta["namespace"]) if not is_finished(one)]
    for quota in quotas:
        words = _missing(pod, quota) or _excess(_amounts(pod), live, quota)
        if words:
            raise forbidden_request("", "pods", meta.get("name") or meta.get("generateName", ""), words)


def _amounts(pod: Json) -> Amounts:
    found: Amounts = defaultdict(Fraction, dict.fromkeys(_COUNTS, Fraction(1)))
    for container in pod["spec"]["containers"]:
        for group, amounts in (container.get("resources") or {}).items():
            for name, amount in (amounts or {}).items():
                found[f"{group}.{name}"] += parse(amount)
                if group == "requests":
                    found[name] += parse(amount)
    return found


def _missing(pod: Json, quota: Json) -> str:
    wanted = []
    for key in quota["spec"].get("hard") or {}:
        group, _, name = key.rpartition(".")
        if name not in _MUST_BE_GIVEN:
            continue
        lacking = [
            container["name"]
            for container in pod["spec"]["containers"]
            if name not in ((container.get("resources") or {}).get(group or "requests") or {})
        ]
        wanted += [f"{key} for: {','.join(lacking)}"] if lacking else []
    return f"failed quota: {quota['metadata']['name']}: must specify {'; '.join(wanted)}" if wanted else ""


def _excess(asked: Amounts, live: list[Amounts], quota: Json) -> str:
    hard: dict[str, str] = quota["spec"].get("hard") or {}
    used = {name: sum((one.get(name, Fraction(0)) for one in live), Fraction(0)) for name in hard}
    over = sorted(name for name in hard if asked.get(name) and used[name] + asked[name] > parse(hard[name]))
    if not over:
        return ""
    requested = ",".join(f"{name}={_short(asked[name])}" for name in over)
    taken = ",".join(f"{name}={_short(used[name])}" for name in over)
    limited = ",".join(f"{name}={hard[name]}" for name in over)
    return f"exceeded quota: {quota['metadata']['name']}, requested: {requested}, used: {taken}, limited: {limited}"


def _short(amount: Fraction) -> str:
    """The amount as Kubernetes prints it, for whole numbers and multiples of Mi and Gi."""
    for unit, size in (("Gi", 2**30), ("Mi", 2**20)):
        if amount >= size and amount % size == 0:
            return f"{amount // size}{unit}"
    return str(amount) if amount.denominator == 1 else f"{int(amount * 1000)}m"
