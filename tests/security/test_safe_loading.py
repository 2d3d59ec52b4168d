"""Nothing that a training reads can run code: models, adapters, states, pictures' texts and settings."""

import ast
import json
import pickle
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, dynamic_module_utils

from lora_api import InvalidTraining
from lora_trainer.captioning.model_files import check_files
from lora_trainer.curation.detector import load_detector
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.families.opening import open_model
from lora_trainer.families.single_file import read_header
from lora_trainer.lora.adapter import InvalidAdapterFile
from lora_trainer.lora.formats import read_adapter
from lora_trainer.similarity import ModelFolder, load_clip, load_dino
from tests.support.documents import make_training
from tests.support.tiny_detector import write_tiny_detector
from tests.support.tiny_judges import write_tiny_clip, write_tiny_dino

ROOT = Path(__file__).parents[2]
PACKAGES = ("crds/lora_api", "operator/lora_operator", "trainer/lora_trainer")
CPU = torch.device("cpu")
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads",
    "shelve.open", "joblib.load", "dill.load", "cloudpickle.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "os.system", "os.popen", "torch.hub.load", "torch.jit.load", "importlib.import_module",
}  # fmt: skip


def calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every call in the product: its place, the called name as it is written, literal keyword arguments."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    given = {word.arg: getattr(word.value, "value", None) for word in node.keywords if word.arg}
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), given


def test_no_code_is_made_from_data() -> None:
    assert [(place, name) for place, name, _ in calls() if name in FORBIDDEN_CALLS] == []


def test_torch_reads_tensors_and_nothing_else() -> None:
    loads = [(place, given) for place, name, given in calls() if name == "torch.load"]

    assert loads
    assert [place for place, given in loads if given.get("weights_only") is not True] == []


def test_numpy_reads_no_pickles() -> None:
    assert [place for place, name, given in calls() if name in {"np.load", "numpy.load"}] == []


@pytest.mark.parametrize("name", ["model.ckpt", "MODEL.CKPT", "model.pt", "model.pth", "pytorch_model.bin"])
@pytest.mark.parametrize("field", ["baseModel.uri", "baseModel.vaeUri", "network.initialUri"])
def test_a_pickle_is_refused_at_the_door(field: str, name: str) -> None:
    with pytest.raises(InvalidTraining, match=r"names a pickle file, which can run code .* to \.safetensors"):
        make_training((field, f"s3://models/{name}"))


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there when code of a model has run."""
    return tmp_path / "mark"


def test_the_payload_would_work(mark: Path) -> None:
    pickle.loads(pickle.dumps(Payload(mark)))

    assert mark.exists()


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_a_pickle_is_refused_whatever_its_name(tmp_path: Path, mark: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Payload(mark)))

    with pytest.raises(BaseModelUnavailable, match=r"^spec\.baseModel\.uri"):
        read_header(tmp_path / name, field="spec.baseModel.uri")
    with pytest.raises((BaseModelUnavailable, InvalidConfiguration)):
        open_model(tmp_path / name)
    with pytest.raises(InvalidAdapterFile, match=r"is no \.safetensors file"):
        read_adapter(tmp_path / name)

    assert not mark.exists()


def test_a_captioning_model_of_pickles_is_refused_with_the_cure(tmp_path: Path, mark: Path) -> None:
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        (tmp_path / name).write_text('{"model_type": "blip"}')
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark)))

    with pytest.raises(BaseModelUnavailable, match="convert them to safetensors"):
        check_files(tmp_path, field="spec.dataset.captions.generate.modelUri")

    assert not mark.exists()


LOADERS = {
    "clip": (write_tiny_clip, lambda folder: load_clip(ModelFolder(folder, "x"), CPU)),
    "dino": (write_tiny_dino, lambda folder: load_dino(ModelFolder(folder, "x"), CPU)),
    "detector": (
        lambda folder: write_tiny_detector(folder, ["cat"], label="cat", box=(0.5, 0.5, 0.5, 0.5)),
        lambda folder: load_detector(folder, CPU, field="x"),
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path, mark: Path, kind: str) -> None:
    write, load = LOADERS[kind]
    folder = write(tmp_path / "model")
    (folder / "hostile.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Hostile: pass\n")
    code = dict.fromkeys(("AutoConfig", "AutoModel", "AutoImageProcessor"), "hostile.Hostile")
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        path = folder / name
        known = json.loads(path.read_text()) if path.exists() else {}
        tokenizer = {"AutoTokenizer": ["hostile.Hostile", None]}
        path.write_text(json.dumps({**known, "auto_map": {**code, **tokenizer}}))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Payload(mark)))

    with suppress(InvalidConfiguration, BaseModelUnavailable):
        load(folder)

    assert not mark.exists()


def test_that_code_would_run_where_it_is_trusted(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    (tmp_path / "hostile.py").write_text(
        "import pathlib\nfrom transformers import PretrainedConfig\n"
        f"pathlib.Path({str(mark)!r}).touch()\nclass Hostile(PretrainedConfig): model_type = 'dinov2'\n"
    )
    config = {"model_type": "dinov2", "auto_map": {"AutoConfig": "hostile.Hostile"}}
    (tmp_path / "config.json").write_text(json.dumps(config))

    AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)

    assert mark.exists()
