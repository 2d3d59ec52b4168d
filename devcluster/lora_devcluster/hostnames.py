"""Stands for the cluster's DNS: the names of pods below headless Services. Used by the kubelet.

There is no name server here. A name works where it is all of a variable's value, alone or with a port: the value is
replaced by the address. An address is kept for a name, for a pod may be told of another one that is not there yet; a
port is replaced by a free one, for the pods of a cluster have all ports to themselves.
https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
"""

import re
import socket
from collections.abc import Callable

from lora_devcluster.errors import Json
from lora_devcluster.selectors import matches
from lora_devcluster.store import Key, Store

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(
    f"(?P<host>{_LABEL})[.](?P<service>{_LABEL})[.](?P<namespace>{_LABEL})[.]svc([.]cluster[.]local)?(:(?P<port>[0-9]+))?"
)

Host = tuple[str, str, str]
"""Namespace, Service and host name."""


class Hostnames:
    """The addresses that belong to names. `next_address` hands out one that no pod has."""

    def __init__(self, store: Store, next_address: Callable[[], str]) -> None:
        self._store = store
        self._next_address = next_address
        self._addresses: dict[Host, str] = {}
        self._ports: dict[tuple[Host, int], int] = {}

    def address_for(self, pod: Json) -> str:
        """The address of a new pod: that of its name, if a headless Service gives it one."""
        spec, namespace = pod["spec"], pod["metadata"]["namespace"]
        service = self._service(namespace, spec.get("subdomain") or "")
        labels = pod["metadata"].get("labels") or {}
        if service is None or not spec.get("hostname") or not matches(_selector(service), labels):
            return self._next_address()
        return self._address((namespace, spec["subdomain"], spec["hostname"]))

    def resolve(self, value: str) -> str:
        """The value, or what it stands for if it is the name of a pod below a headless Service that is there."""
        found = _NAME.fullmatch(value)
        if found is None or self._service(found["namespace"], found["service"]) is None:
            return value
        host = (found["namespace"], found["service"], found["host"])
        address = self._address(host)
        return f"{address}:{self._port(host, int(found['port']))}" if found["port"] else address

    def _service(self, namespace: str, name: str) -> Json | None:
        service = self._store.get(Key("", "services", namespace, name))
        return service if service is not None and service["spec"].get("clusterIP") == "None" else None

    def _address(self, host: Host) -> str:
        if host not in self._addresses:
            self._addresses[host] = self._next_address()
        return self._addresses[host]

    def _port(self, host: Host, port: int) -> int:
        if (host, port) not in self._ports:
            with socket.socket() as probe:
                probe.bind((self._address(host), 0))
                self._ports[host, port] = probe.getsockname()[1]
        return self._ports[host, port]


def _selector(service: Json) -> Json:
    return {"matchLabels": service["spec"].get("selector") or {}}
