"""Volumes as directories, and the rewriting of paths that stands in for mounting them. Used by the kubelet."""

import base64
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lora_devcluster.claims import claim_name
from lora_devcluster.downward import field_value, resource_value
from lora_devcluster.errors import Json

Lookup = Callable[[str, str], Json | None]
"""Finds an object of the pod's namespace by plural and name."""

_BOUNDARY = r"(?<![A-Za-z0-9_.\-/~])"
_FILE_SCHEME = "file://"
_LEAST_PARTS = 2
"""The root and one name."""


class MountError(Exception):
    """A volume that cannot be set up now; the kubelet tries again."""


@dataclass(frozen=True)
class VolumeContext:
    """What volumes are made of: the pod, where its files lie, where claims lie, and how to look things up."""

    pod: Json
    root: Path
    claims: Path
    lookup: Lookup


def make_volumes(context: VolumeContext) -> dict[str, Path]:
    """A path for every volume of the pod, by the volume's name.

    Raises:
        MountError: something that a volume needs is not there.
    """
    return {volume["name"]: _make(volume, context) for volume in context.pod["spec"].get("volumes") or ()}


def _make(volume: Json, context: VolumeContext) -> Path:
    folder = context.root / "volumes" / str(volume["name"])
    sources: dict[str, Callable[[Json, Path, VolumeContext], None]] = {
        "secret": _secret,
        "configMap": _config_map,
        "projected": _projected,
        "downwardAPI": _downward,
        "emptyDir": lambda _source, _folder, _context: None,
    }
    if volume.get("hostPath") is not None:
        return _host_path(volume["name"], volume["hostPath"])
    if name := claim_name(context.pod, volume):
        claim = context.claims / str(context.pod["metadata"]["namespace"]) / name
        claim.mkdir(parents=True, exist_ok=True)
        return claim
    kind = next((name for name in sources if volume.get(name) is not None), None)
    if kind is None:
        kinds = ", ".join(sorted(name for name in volume if name != "name"))
        raise MountError(
            f'MountVolume.SetUp failed for volume "{volume["name"]}" : {kinds} volumes do not exist in this cluster'
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        sources[kind](volume[kind], folder, context)
    except MountError as error:
        raise MountError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
    return folder


def _host_path(name: str, source: Json) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    elif (kind == "Directory" and not path.is_dir()) or (kind == "File" and not path.is_file()):
        raise MountError(
            f'MountVolume.SetUp failed for volume "{name}" : hostPath type check failed: {path} is not a {kind.lower()}'
        )
    return path


def _write(folder: Path, relative: str, data: bytes, mode: int) -> None:
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def _write_items(data: Mapping[str, bytes], source: Json, folder: Path, what: str) -> None:
    mode = source.get("defaultMode", 0o644)
    items = source.get("items") or [{"key": key, "path": key} for key in data]
    for item in items:
        if item["key"] in data:
            _write(folder, item["path"], data[item["key"]], item.get("mode", mode))
        elif not source.get("optional"):
            raise MountError(f"references non-existent {what} key: {item['key']}")


def _secret(source: Json, folder: Path, context: VolumeContext) -> None:
    name = source.get("secretName") or source.get("name", "")
    found = context.lookup("secrets", name)
    if found is None:
        if source.get("optional"):
            return
        raise MountError(f'secret "{name}" not found')
    data = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    _write_items(data, source, folder, "secret")


def _config_map(source: Json, folder: Path, context: VolumeContext) -> None:
    name = source.get("name", "")
    found = context.lookup("configmaps", name)
    if found is None:
        if source.get("optional"):
            return
        raise MountError(f'configmap "{name}" not found')
    data = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    data |= {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
    _write_items(data, source, folder, "config")


def _downward(source: Json, folder: Path, context: VolumeContext) -> None:
    """Files as they are when the pod starts: a field that the pod has not got is an empty file."""
    mode = source.get("defaultMode", 0o644)
    for item in source.get("items") or ():
        text = _downward_text(item, context.pod)
        _write(folder, item["path"], text.encode(), item.get("mode", mode))


def _downward_text(item: Json, pod: Json) -> str:
    if item.get("fieldRef"):
        return field_value(pod, item["fieldRef"]["fieldPath"])
    wanted = item["resourceFieldRef"]
    containers = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
    found = next((one for one in containers if one["name"] == wanted["containerName"]), None)
    if found is None:
        raise MountError(f"container {wanted['containerName']} not found")
    return resource_value(found, wanted)


def _projected(source: Json, folder: Path, context: VolumeContext) -> None:
    mode = {"defaultMode": source.get("defaultMode", 0o644)}
    for part in source.get("sources") or ():
        if part.get("secret") is not None:
            _secret({**part["secret"], **mode}, folder, context)
        elif part.get("configMap") is not None:
            _config_map({**part["configMap"], **mode}, folder, context)
        elif part.get("downwardAPI") is not None:
            _downward({**part["downwardAPI"], **mode}, folder, context)
        elif part.get("serviceAccountToken") is not None:
            _write(folder, part["serviceAccountToken"]["path"], user_of(context.pod).encode(), 0o600)


def user_of(pod: Json) -> str:
    """The name under which a pod's processes talk to the API; it is their bearer token too."""
    return f"system:serviceaccount:{pod['metadata']['namespace']}:{pod['spec'].get('serviceAccountName') or 'default'}"


class PathMap:
    """Replaces paths inside the container by paths of this machine, longest first."""

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = {place.rstrip("/") or "/": str(path) for place, path in places.items()}
        ordered = sorted(self._places, key=len, reverse=True)
        alternatives = "|".join(re.escape(place) for place in ordered)
        pattern = rf"(?:(?<={re.escape(_FILE_SCHEME)})|{_BOUNDARY})({alternatives})(?![A-Za-z0-9_.\-])"
        self._pattern = re.compile(pattern) if ordered else None

    def rewrite(self, text: str) -> str:
        """The text with every whole path, or start of a path, that is mounted somewhere replaced."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: self._places[found[1]], text)


def mount_places(container: Json, volumes: Mapping[str, Path]) -> dict[str, Path]:
    """Where a container's mounts lie on this machine, by the path inside the container."""
    places = {}
    for mount in container.get("volumeMounts") or ():
        path = volumes[mount["name"]]
        if mount.get("subPath"):
            path = path / mount["subPath"]
            if not path.exists():
                path.mkdir(parents=True)
        places[mount["mountPath"]] = path
    return places


def parent_places(places: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Folders in `folder` that stand for those that mounts lie in, by their path inside the container.

    Each holds links to its mounts: a program may be told of `/mnt/claims` alone. Folders such as `/mnt` stay this
    machine's.
    """
    found = {}
    for place, path in places.items():
        parent = PurePosixPath(place).parent
        if len(parent.parts) > _LEAST_PARTS and str(parent) not in places:
            found[str(parent)] = folder / parent.relative_to("/")
            found[str(parent)].mkdir(parents=True, exist_ok=True)
            link = found[str(parent)] / PurePosixPath(place).name
            if not link.is_symlink():
                link.symlink_to(path)
    return found


def remove_files(root: Path) -> None:
    """Removes a pod's files, also read-only ones."""
    shutil.rmtree(root, ignore_errors=True)
