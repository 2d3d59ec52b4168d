"""Finds faces and persons by models for object detection. Used by `lora dataset crop`.

Any transformers folder of such a model in safetensors that needs nothing but torch, such as YOLOS (Fang et al. 2021,
arXiv:2106.00666) or RT-DETR; its `config.json` names what it finds. Models in ONNX would need another runtime.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from lora_trainer.curation.regions import Box, Person, height_of, width_of
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration

FILES = ("config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors")
"""What is worth fetching: everything that is loaded."""
_HINT = "Name a transformers folder of an object detection model, with safetensors, such as of YOLOS or RT-DETR."


@dataclass(frozen=True)
class Sought:
    """What is looked for, and how sure a model has to be."""

    face: str = "face"
    """Label of faces, upper and lower case alike."""
    person: str = "person"
    threshold: float = 0.5
    """Lowest score, 0 to 1."""


@dataclass(frozen=True)
class Detector:
    """A loaded model."""

    model: Any
    processor: Any
    device: torch.device

    @property
    def labels(self) -> tuple[str, ...]:
        """What it can find, in lower case."""
        return tuple(str(label).casefold() for label in self.model.config.id2label.values())

    @torch.no_grad()
    def boxes(self, image: Image.Image, *, threshold: float) -> list[tuple[str, Box]]:
        """Label in lower case and box of everything found in an RGB picture, inside of it; surest first."""
        pixels = self.processor(images=image, return_tensors="pt").to(self.device)
        answer = self.model(**pixels)
        sizes = [(image.height, image.width)]
        found = self.processor.post_process_object_detection(answer, threshold=threshold, target_sizes=sizes)[0]
        order = torch.argsort(found["scores"], descending=True, stable=True).tolist()
        names = [str(self.model.config.id2label[int(label)]).casefold() for label in found["labels"]]
        boxes = [_inside(found["boxes"][place].tolist(), image.size) for place in order]
        labelled = zip((names[place] for place in order), boxes, strict=True)
        return [(name, box) for name, box in labelled if width_of(box) > 0 and height_of(box) > 0]


def load_detector(folder: Path, device: torch.device, *, field: str) -> Detector:
    """The model in a transformers folder, on `device`; `field` begins the messages.

    Raises:
        BaseModelUnavailable: files are missing, cannot be read, or are those of another kind of model.
    """
    if not (folder / "model.safetensors").is_file():
        raise BaseModelUnavailable(f"{field}: there is no model.safetensors in {folder.name}", hint=_HINT)
    here = {"local_files_only": True, "trust_remote_code": False}
    try:
        model, info = AutoModelForObjectDetection.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **here
        )
        processor = AutoImageProcessor.from_pretrained(folder, **here)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise BaseModelUnavailable(f"{field} cannot be loaded: {first_line}", hint=_HINT) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseModelUnavailable(f"{field} lacks {len(missing)} weights, such as {missing[0]}", hint=_HINT)
    return Detector(model.eval().to(device), processor, device)


def check_labels(detectors: Sequence[Detector], sought: Sought) -> None:
    """Raises InvalidConfiguration if no model can find anything that is looked for."""
    known = {label for detector in detectors for label in detector.labels}
    if known.isdisjoint(_wanted(sought)):
        raise InvalidConfiguration(
            f"--detector finds neither {sought.face!r} nor {sought.person!r}, but {', '.join(sorted(known)[:20])}; "
            "name what is meant by --label face=… or --label person=…",
            hint="",
        )


def find_person(image: Image.Image, detectors: Sequence[Detector], sought: Sought) -> Person:
    """The largest person that is found, and the largest face, which lies in that person if one does."""
    found = [box for detector in detectors for box in detector.boxes(image, threshold=sought.threshold)]
    faces = [box for label, box in found if label == sought.face.casefold()]
    person = _largest([box for label, box in found if label == sought.person.casefold()])
    own = [face for face in faces if person is not None and _holds_middle(person, face)]
    return Person(_largest(own or faces), person)


def _wanted(sought: Sought) -> set[str]:
    return {sought.face.casefold(), sought.person.casefold()}


def _largest(boxes: Sequence[Box]) -> Box | None:
    return max(boxes, key=lambda box: width_of(box) * height_of(box), default=None)


def _holds_middle(person: Box, face: Box) -> bool:
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    return person[0] <= x < person[2] and person[1] <= y < person[3]


def _inside(edges: Sequence[float], size: tuple[int, int]) -> Box:
    left, top, right, bottom = map(round, edges)
    return max(0, left), max(0, top), min(size[0], right), min(size[1], bottom)
