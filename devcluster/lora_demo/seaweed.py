"""An S3 server on this machine: SeaweedFS in one process, on loopback only."""

import contextlib
import os
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_demo.processes import DemoError, free_ports, running, wait_until

ACCESS_KEY = "demo"
SECRET_KEY = "demo-secret-key"


@dataclass(frozen=True)
class ObjectStore:
    """Where the server listens and who may use it."""

    endpoint: str
    access_key: str
    secret_key: str


@contextlib.contextmanager
def seaweed(directory: Path, log_dir: Path) -> Iterator[ObjectStore]:
    """A SeaweedFS server for the time of the `with` block; its data lie in `directory`."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        raise DemoError("the program 'weed' (SeaweedFS) is missing; run `make setup`")
    directory.mkdir(parents=True, exist_ok=True)
    s3, master, volume, filer, admin = free_ports(5)
    command = [
        program, "mini", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
        f"-admin.port={admin}", "-master.telemetry=false", "-admin.ui=false", "-webdav=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    # Its flags can also be set by environment variables of the same name: give it none but its credentials.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    with running("seaweedfs", command, log_dir=log_dir, environment=environment, stop_signal=signal.SIGKILL) as child:
        endpoint = f"http://127.0.0.1:{s3}"
        wait_until(lambda: _answers(endpoint), "SeaweedFS' answer", seconds=60, child=child)
        yield ObjectStore(endpoint, ACCESS_KEY, SECRET_KEY)


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=2)
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, OSError):
        return False
    return True
