"""Dockerfile: two images, neither runs as root, the operator's holds no torch; the build's context is enough."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = ("operator", "trainer")


@dataclass(frozen=True)
class Stage:
    """One FROM with the instructions below it."""

    name: str
    base: str
    instructions: tuple[tuple[str, str], ...]

    def all(self, keyword: str) -> list[str]:
        """The arguments of every such instruction."""
        return [arguments for word, arguments in self.instructions if word == keyword]


def read_dockerfile() -> tuple[dict[str, str], dict[str, Stage]]:
    """(arguments before the first FROM, stages by name)."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    starts = [index for index, (word, _) in enumerate(lines) if word == "FROM"]
    defaults = dict(arguments.split("=", 1) for word, arguments in lines[: starts[0]] if word == "ARG")
    stages = {}
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        base, _, name = lines[start][1].split()
        stages[name] = Stage(name, base, tuple((word, arguments) for word, arguments in lines[start + 1 : end]))
    return defaults, stages


DEFAULTS, STAGES = read_dockerfile()


def ancestors(name: str) -> set[str]:
    """The stages whose content can reach a stage."""
    stage = STAGES[name]
    sources = {match for line in stage.all("COPY") for match in re.findall(r"--from=(\S+)", line)} | {stage.base}
    return {name}.union(*(ancestors(source) for source in sources if source in STAGES))


def installed(name: str) -> str:
    """Everything that pip is told to install on the way to a stage."""
    commands = [line for stage in ancestors(name) for line in STAGES[stage].all("RUN")]
    return "\n".join(line for line in commands if "pip" in line and "install" in line)


def test_the_header_lists_the_stages_in_order() -> None:
    header = (ROOT / "Dockerfile").read_text().split("ARG", 1)[0]

    assert re.findall(r"^#   (\S+)  ", header, flags=re.MULTILINE) == list(STAGES)


def test_both_images_are_there() -> None:
    assert set(IMAGES) <= set(STAGES)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_every_base_is_a_pinned_argument(stage: Stage) -> None:
    match = re.fullmatch(r"\$\{(\w+)\}", stage.base)

    assert match
    # A name with its full version, or a digest; never a tag that moves such as latest.
    assert re.search(r":\d+\.\d+\.\d+|@sha256:[0-9a-f]{64}", DEFAULTS[match.group(1)])


@pytest.mark.parametrize("name", IMAGES)
def test_images_run_as_a_user_that_kubernetes_can_see_is_not_root(name: str) -> None:
    *_, user = STAGES[name].all("USER")

    # By number: runAsNonRoot cannot be checked against a name.
    assert [int(part) for part in user.split(":")] == [65532, 65532]


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_is_changed_after_root_is_left(name: str) -> None:
    words = [word for word, _ in STAGES[name].instructions]

    assert not {"RUN", "COPY", "ADD"} & set(words[words.index("USER") :])


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_made_of_copies_only(name: str) -> None:
    assert STAGES[name].all("RUN") == []
    assert STAGES[name].all("ADD") == []


def test_the_operator_gets_its_own_requirements_and_nothing_of_the_trainer() -> None:
    extras = set(re.findall(r"lora-operator\[([^\]]+)\]", installed("operator")))

    assert extras == {"operator"}
    assert "trainer-environment" not in ancestors("operator")
    assert not re.search(r"torch|diffusers|xformers|bitsandbytes", installed("operator"))
    assert not re.search(r"torch|diffusers", " ".join(PROJECT["optional-dependencies"]["operator"]))


def test_the_trainer_gets_its_requirements_and_those_of_the_gpu() -> None:
    assert set(re.findall(r"lora-operator\[([^\]]+)\]", installed("trainer"))) == {"trainer,gpu"}


@pytest.mark.parametrize("name", IMAGES)
def test_every_install_is_pinned_by_the_constraints(name: str) -> None:
    commands = [line for line in installed(name).splitlines() if "wheel --no-deps" not in line]

    assert len(commands) == 2
    assert all("constraints.txt" in line for line in commands)


@pytest.mark.parametrize(
    ("name", "entry"), [("operator", '["python", "-m", "lora_operator"]'), ("trainer", '["lora"]')]
)
def test_the_entry_points_are_the_programs(name: str, entry: str) -> None:
    assert STAGES[name].all("ENTRYPOINT") == [entry]
    assert "lora" in PROJECT["scripts"]


def test_no_command_needs_a_shell() -> None:
    commands = [line for stage in STAGES.values() for line in stage.all("RUN") if not line.startswith("[")]

    assert [line for line in commands if re.search(r"[;|<>`]|&&|\$\(", line)] == []
    assert all(shlex.split(line) for line in commands)


def test_the_wheel_is_the_version_of_the_project() -> None:
    versions = {line for stage in STAGES.values() for line in stage.all("ARG") if line.startswith("VERSION")}

    assert versions == {f"VERSION={PROJECT['version']}"}


def test_the_context_holds_what_the_wheel_is_built_from() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert kept == {"pyproject.toml", "constraints.txt", PROJECT["readme"], *PROJECT["license-files"], *packages}
    assert [name for name in kept if not (ROOT / name).exists()] == []
