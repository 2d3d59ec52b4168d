"""Events as controllers write them: repeated ones are counted, the oldest make room."""

from collections import OrderedDict
from uuid import uuid4

from lora_devcluster import clock
from lora_devcluster.api import Api
from lora_devcluster.errors import Json
from lora_devcluster.store import Key

_KEPT = 3000


class Recorder:
    """Writes Events about objects on behalf of the controllers and the kubelet."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: OrderedDict[tuple[str, ...], Key] = OrderedDict()

    def normal(self, about: Json, source: str, reason: str, message: str) -> None:
        self._record(about, source, ("Normal", reason, message))

    def warning(self, about: Json, source: str, reason: str, message: str) -> None:
        self._record(about, source, ("Warning", reason, message))

    def _record(self, about: Json, source: str, said: tuple[str, str, str]) -> None:
        identity = (about["metadata"]["uid"], source, *said)
        key = self._known.get(identity)
        if key is not None and self._api.modify(key, _count_again) is not None:
            return
        namespace = about["metadata"].get("namespace", "default")
        key = Key("", "events", namespace, f"{about['metadata']['name']}.{uuid4().hex[:16]}")
        self._api.store.put(key, _event(key, about, source, said))
        self._known[identity] = key
        if len(self._known) > _KEPT:
            _, oldest = self._known.popitem(last=False)
            if self._api.store.get(oldest) is not None:
                self._api.store.remove(oldest)


def _count_again(event: Json) -> None:
    event["count"] += 1
    event["lastTimestamp"] = clock.timestamp()


def _event(key: Key, about: Json, source: str, said: tuple[str, str, str]) -> Json:
    kind, reason, message = said
    meta, now = about["metadata"], clock.timestamp()
    involved = {
        "kind": about["kind"],
        "apiVersion": about["apiVersion"],
        "name": meta["name"],
        "namespace": meta.get("namespace", ""),
        "uid": meta["uid"],
        "resourceVersion": meta["resourceVersion"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": str(uuid4()), "creationTimestamp": now},
        "involvedObject": involved,
        "type": kind,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": source},
        "reportingComponent": source,
        "reportingInstance": source,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "eventTime": None,
        "count": 1,
    }
