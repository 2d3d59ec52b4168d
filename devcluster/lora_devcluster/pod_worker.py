"""Runs one pod: volumes, init containers, containers, restarts, and its end. One task of the kubelet per pod."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lora_devcluster import clock, process
from lora_devcluster.api import Api
from lora_devcluster.documents import copied
from lora_devcluster.environment import ConfigError, container_environment, expand
from lora_devcluster.errors import Json
from lora_devcluster.events import Recorder
from lora_devcluster.images import Image, Table, find_image, resolve_program
from lora_devcluster.mounts import (
    MountError,
    PathMap,
    VolumeContext,
    make_volumes,
    mount_places,
    parent_places,
)
from lora_devcluster.pod_status import (
    is_initialized,
    new_status,
    phase,
    running,
    set_pod_conditions,
    terminated,
    waiting,
)
from lora_devcluster.probes import ProbeRunner
from lora_devcluster.store import Key

_SOURCE = "kubelet"
_START_FAILED = 128


@dataclass(frozen=True)
class PodSetting:
    """What the kubelet gives every pod: places for files, images, variables, and how long to wait between attempts."""

    root: Path
    claims: Path
    images: Table
    environment: Mapping[str, str]
    retry_seconds: float
    restart_seconds: float
    resolve: Callable[[str], str]
    """Replaces the value of a variable that is the name of a pod by its address."""


class PodWorker:
    """The life of one pod. `stop` begins its end; `run` returns when all is over and reported."""

    def __init__(self, api: Api, recorder: Recorder, key: Key, setting: PodSetting) -> None:
        self._api = api
        self._recorder = recorder
        self._key = key
        self._setting = setting
        self.pod: Json = copied(api.store.get(key) or {})
        self._stopping = asyncio.Event()
        self._grace_seconds = 0.0
        self._reason: tuple[str, str] = ("", "")
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._out_of_memory: set[str] = set()
        spec = self.pod["spec"]
        first = "PodInitializing" if spec.get("initContainers") else "ContainerCreating"
        self._inits = [new_status(container, "PodInitializing") for container in spec.get("initContainers") or ()]
        self._mains = [new_status(container, first) for container in spec["containers"]]
        self._volumes: dict[str, Path] = {}

    @property
    def files(self) -> Path:
        return self._setting.root / str(self.pod["metadata"]["uid"])

    def stop(self, grace_seconds: float, reason: str = "", message: str = "") -> None:
        """Ends the pod: SIGTERM now, SIGKILL after the grace period. A shorter period replaces a longer one."""
        self._reason = self._reason if self._reason[0] else (reason, message)
        again = self._stopping.is_set()
        self._grace_seconds = min(grace_seconds, self._grace_seconds) if again else grace_seconds
        self._stopping.set()
        if again and grace_seconds <= 0:
            for running_process in self._processes.values():
                process.send_signal(running_process, signal.SIGKILL)

    def kill_for_memory(self, container: str) -> None:
        """Ends a container as the kernel does when its memory is used up."""
        self._out_of_memory.add(container)
        process.send_signal(self._processes[container], signal.SIGKILL)

    def abandon(self) -> None:
        """Kills all processes; nothing will be reported any more."""
        for running_process in self._processes.values():
            process.send_signal(running_process, signal.SIGKILL)

    def is_running(self, container: str) -> bool:
        return container in self._processes

    async def run(self) -> None:
        if all(self._is_noop(container) for container in self.pod["spec"]["containers"]):
            self._complete_without_processes()
            return
        self._publish(final=False)
        deadline = self._watch_deadline()
        try:
            if await self._set_up_volumes() and await self._initialize():
                mains = zip(self.pod["spec"]["containers"], self._mains, strict=True)
                await asyncio.gather(*(self._keep_running(container, status) for container, status in mains))
        finally:
            if deadline:
                deadline.cancel()
        self._close_waiting()
        self._publish(final=True)

    def _is_noop(self, container: Json) -> bool:
        image = find_image(self._setting.images, container["image"])
        return image is not None and image.noop

    def _complete_without_processes(self) -> None:
        now = clock.timestamp()
        for status in [*self._inits, *self._mains]:
            status["state"] = terminated(
                0, reason="Completed", message="", started=now, container_id=self._container_id(status)
            )
        self._publish(final=True)

    def _watch_deadline(self) -> asyncio.TimerHandle | None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return None
        words = "Pod was active on the node longer than the specified deadline"
        grace = float(self.pod["spec"]["terminationGracePeriodSeconds"])
        return asyncio.get_running_loop().call_later(seconds, self.stop, grace, "DeadlineExceeded", words)

    async def _pause(self, seconds: float) -> None:
        """Waits, but not longer than until the pod is stopped."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _lookup(self, plural: str, name: str) -> Json | None:
        return self._api.store.get(Key("", plural, self._key.namespace, name))

    async def _set_up_volumes(self) -> bool:
        context = VolumeContext(self.pod, self.files, self._setting.claims, self._lookup)
        while not self._stopping.is_set():
            try:
                self._volumes = make_volumes(context)
            except MountError as error:
                self._recorder.warning(self.pod, _SOURCE, "FailedMount", str(error))
                await self._pause(self._setting.retry_seconds)
            else:
                return True
        return False

    async def _initialize(self) -> bool:
        inits = zip(self.pod["spec"].get("initContainers") or (), self._inits, strict=True)
        for container, status in inits:
            await self._keep_running(container, status, until_success=True)
            if self._stopping.is_set() or status["state"].get("terminated", {}).get("exitCode") != 0:
                return False
        for status in self._mains:
            status["state"] = waiting("ContainerCreating")
        return not self._stopping.is_set()

    async def _keep_running(self, container: Json, status: Json, until_success: bool = False) -> None:
        """Runs a container, again and again where the pod's restart policy says so."""
        policy = self.pod["spec"]["restartPolicy"]
        delay = self._setting.restart_seconds
        while not self._stopping.is_set():
            command = await self._prepare(container, status)
            if command is None:
                return
            code = await self._run_once(container, status, command)
            again = (policy == "Always" and not until_success) or (policy != "Never" and code != 0)
            if not again or self._stopping.is_set():
                return
            await self._back_off(container, status, delay)
            delay = min(delay * 2, 300.0)

    async def _back_off(self, container: Json, status: Json, delay: float) -> None:
        self._publish(final=False)
        status["lastState"] = status["state"]
        status["restartCount"] += 1
        pod = f"{self._key.name}_{self._key.namespace}({self.pod['metadata']['uid']})"
        words = f"back-off {delay:g}s restarting failed container={container['name']} pod={pod}"
        status["state"] = waiting("CrashLoopBackOff", words)
        self._publish(final=False)
        self._recorder.warning(
            self.pod, _SOURCE, "BackOff", f"Back-off restarting failed container {container['name']} in pod {pod}"
        )
        await self._pause(delay)
        if self._stopping.is_set():
            status["state"] = status["lastState"]

    async def _prepare(self, container: Json, status: Json) -> process.Command | None:
        """The container's command, as soon as its image and all that it refers to are there."""
        while not self._stopping.is_set():
            image = find_image(self._setting.images, container["image"])
            if image is None:
                await self._report_missing_image(container, status)
                continue
            try:
                return self._command(container, status, image)
            except ConfigError as error:
                status["state"] = waiting("CreateContainerConfigError", str(error))
                self._recorder.warning(self.pod, _SOURCE, "Failed", f"Error: {error}")
            self._publish(final=False)
            await self._pause(self._setting.retry_seconds)
        return None

    async def _report_missing_image(self, container: Json, status: Json) -> None:
        name = container["image"]
        words = f'failed to pull and unpack image "{name}": no entry of the image table fits this name'
        if container["imagePullPolicy"] == "Never":
            status["state"] = waiting(
                "ErrImageNeverPull", f'Container image "{name}" is not present with pull policy of Never'
            )
        elif status["state"].get("waiting", {}).get("reason") == "ErrImagePull":
            status["state"] = waiting("ImagePullBackOff", f'Back-off pulling image "{name}": ErrImagePull: {words}')
            self._recorder.normal(self.pod, _SOURCE, "BackOff", f'Back-off pulling image "{name}"')
        elif status["state"].get("waiting", {}).get("reason") != "ImagePullBackOff":
            status["state"] = waiting("ErrImagePull", words)
            self._recorder.warning(self.pod, _SOURCE, "Failed", f'Failed to pull image "{name}": {words}')
        self._publish(final=False)
        await self._pause(self._setting.retry_seconds)

    def _command(self, container: Json, status: Json, image: Image) -> process.Command:
        scratch = self.files / "scratch" / container["name"]
        (scratch / "tmp").mkdir(parents=True, exist_ok=True)
        message = self._message_file(container)
        message.parent.mkdir(parents=True, exist_ok=True)
        message.unlink(missing_ok=True)
        places = mount_places(container, self._volumes) | {container["terminationMessagePath"]: message}
        paths = PathMap(parent_places(places, scratch / "mounts") | places)
        told = container_environment(self.pod, container, self._lookup)
        given = {name: self._setting.resolve(value) for name, value in told.items()}
        values = {name: paths.rewrite(value) for name, value in given.items()}
        own = {
            "HOSTNAME": self.pod["spec"].get("hostname") or self._key.name,
            "HOME": str(scratch),
            "TMPDIR": str(scratch / "tmp"),
        }
        environment = {**self._setting.environment, **own, **values}
        words = [*(container.get("command") or image.entrypoint), *(container.get("args") or ())]
        argv = [paths.rewrite(expand(word, given)) for word in words]
        folder = Path(paths.rewrite(container["workingDir"])) if container.get("workingDir") else scratch
        log = self.files / "logs" / f"{container['name']}-{status['restartCount']}.log"
        return process.Command(argv, environment, folder if folder.is_dir() else scratch, log)

    def _message_file(self, container: Json) -> Path:
        return self.files / "messages" / str(container["name"])

    def _container_id(self, status: Json) -> str:
        return f"process://{self.pod['metadata']['uid']}/{status['name']}/{status['restartCount']}"

    async def _run_once(self, container: Json, status: Json, command: process.Command) -> int:
        name = container["name"]
        started, identity = clock.timestamp(), self._container_id(status)
        try:
            argv = resolve_program(list(command.argv), command.environment["PATH"]) if command.argv else []
            if not argv:
                raise FileNotFoundError("no command specified")
            child = await process.start(process.Command(argv, command.environment, command.folder, command.log))
        except OSError as error:
            words = f"failed to create containerd task: failed to start container: {error}"
            status["state"] = terminated(
                _START_FAILED, reason="StartError", message=words, started=started, container_id=identity
            )
            self._recorder.warning(self.pod, _SOURCE, "Failed", f"Error: {words}")
            return _START_FAILED
        self._processes[name] = child
        for reason, words in (("Created", f"Created container: {name}"), ("Started", f"Started container {name}")):
            self._recorder.normal(self.pod, _SOURCE, reason, words)
        status |= {"state": running(), "containerID": identity, "imageID": container["image"], "started": True}
        status["ready"] = not container.get("readinessProbe")
        self._publish(final=False)
        await self._wait(container, status, child)
        del self._processes[name]
        code = process.exit_code(child.returncode or 0)
        message = process.termination_message(container, self._message_file(container), command.log, code)
        reason = "Completed" if code == 0 else "OOMKilled" if name in self._out_of_memory else "Error"
        ended = terminated(code, reason=reason, message=message, started=started, container_id=identity)
        status |= {"state": ended, "ready": False, "started": False}
        if len(self._mains) > 1:
            self._publish(final=False)
        return code

    async def _wait(self, container: Json, status: Json, child: asyncio.subprocess.Process) -> None:
        """Until the process has ended, by itself or because the pod or a failing probe stops it."""
        probes = ProbeRunner(container, self.pod["status"].get("podIP", ""), status, lambda: self._publish(final=False))
        over = asyncio.ensure_future(child.wait())
        others = [asyncio.ensure_future(self._stopping.wait()), asyncio.ensure_future(probes.until_unhealthy())]
        try:
            await asyncio.wait({over, *others}, return_when=asyncio.FIRST_COMPLETED)
            if not over.done():
                self._recorder.normal(self.pod, _SOURCE, "Killing", f"Stopping container {container['name']}")
                grace = (
                    self._grace_seconds
                    if self._stopping.is_set()
                    else self.pod["spec"]["terminationGracePeriodSeconds"]
                )
                await process.stop(child, grace)
            process.send_signal(child, signal.SIGKILL)
        finally:
            for task in (over, *others):
                task.cancel()

    def _close_waiting(self) -> None:
        """Containers that never ran, in a pod that is over, ended without success."""
        for status in [*self._inits, *self._mains]:
            if "waiting" in status["state"] and self._stopping.is_set():
                words = "The container could not be located when the pod was terminated"
                status["state"] = terminated(
                    137, reason="ContainerStatusUnknown", message=words, started="", container_id=""
                )
                status["state"]["terminated"] |= {"startedAt": None}

    def _publish(self, *, final: bool) -> None:
        self._api.modify(self._key, lambda pod: self._fill(pod, final))

    def _fill(self, pod: Json, final: bool) -> None:
        status = pod["status"]
        status["phase"] = phase(self._inits, self._mains, final=final)
        failed = final and not is_initialized(self._inits)
        status["phase"] = "Failed" if failed else status["phase"]
        if final and self._reason[0]:
            status |= {"phase": "Failed", "reason": self._reason[0], "message": self._reason[1]}
        if self._inits:
            status["initContainerStatuses"] = copied(self._inits)
        status["containerStatuses"] = copied(self._mains)
        set_pod_conditions(status, self._inits, self._mains)
