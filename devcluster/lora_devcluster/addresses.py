"""Addresses of pods: loopback addresses of a range that no other cluster on this machine uses. For the kubelet."""

import socket

_RANGES = range(10, 250)
_LEASE_PORT = 45127
"""Whoever listens here at the range's last address owns the range."""
_PER_BLOCK = 250


class PodAddresses:
    """Hands out 127.n.x.y; n is taken at the first address and given back by `close` or the end of the process."""

    def __init__(self) -> None:
        self._lease: socket.socket | None = None
        self._prefix = ""
        self._given = 0

    def next(self) -> str:
        """An address that was not given before. Raises OSError when every range is taken."""
        if self._lease is None:
            self._lease, self._prefix = _take_range()
        self._given += 1
        return f"{self._prefix}.{self._given // _PER_BLOCK % _PER_BLOCK}.{self._given % _PER_BLOCK + 1}"

    def close(self) -> None:
        """Gives the range back."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None


def _take_range() -> tuple[socket.socket, str]:
    for number in _RANGES:
        lease = socket.socket()
        try:
            lease.bind((f"127.{number}.255.254", _LEASE_PORT))
        except OSError:
            lease.close()
            continue
        return lease, f"127.{number}"
    raise OSError("every address range for pods, 127.10.0.0/16 to 127.249.0.0/16, is taken by another cluster")
