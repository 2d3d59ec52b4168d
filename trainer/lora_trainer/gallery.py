"""The pictures of a run: drawn when they are due, published, and put on a growing sheet. Used by `recorder`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from lora_trainer.audience import Audience
from lora_trainer.drawing import Painter
from lora_trainer.lora.inject import Adapters
from lora_trainer.output import RunOutput
from lora_trainer.plan import TrainingPlan
from lora_trainer.results import sheet_path
from lora_trainer.samples import Moment, Picture, lora_tag, write_picture, write_sheet


@dataclass(frozen=True)
class Exhibits:
    """What is drawn, of what."""

    name: str
    """That of the output."""
    base_name: str
    """That of the base model, as the pictures tell it."""
    pictures: tuple[Picture, ...]
    adapters: Adapters
    painter: Painter
    result: Callable[[], AbstractContextManager[object]]
    """Has the adapters as they are saved while it is open."""


class Gallery:
    """Draws and publishes the pictures of one run."""

    def __init__(self, exhibits: Exhibits, plan: TrainingPlan, output: RunOutput, audience: Audience) -> None:
        """Raises InvalidConfiguration when the model cannot draw one of the pictures."""
        self._exhibits, self._plan, self._output, self._audience = exhibits, plan, output, audience
        exhibits.painter.check(exhibits.pictures, field="spec.samples.prompts")

    def begin(self, step: int) -> None:
        """Draws what is due where the training begins or goes on, unless an earlier attempt did."""
        if 0 in self._plan.sample_epochs:
            self._draw_once(Moment(0, epoch=0))
        self.after_step(step)

    def after_step(self, step: int) -> None:
        """Draws if pictures are due after this step, unless an earlier attempt did."""
        if step in self._plan.sample_steps:
            self._draw_once(Moment(step))

    def after_epoch(self, step: int, epoch: int, *, is_last: bool = False) -> None:
        """Draws if pictures are due after this epoch, and publishes the sheet up to it.

        `is_last`: the training ends here, earlier than planned.
        """
        if epoch in self._plan.sample_epochs or (is_last and self._plan.sample_epochs):
            self._draw(Moment(step, epoch))
            self._publish_sheet(sheet_path(self._exhibits.name, epoch), step, epoch)

    def finish(self, step: int, epoch: int) -> None:
        """Publishes the sheet of the whole run, if anything was drawn."""
        if self._drawn(Moment(step, epoch)):
            self._publish_sheet(sheet_path(self._exhibits.name), step, epoch)

    def _draw_once(self, moment: Moment) -> None:
        if moment not in self._drawn():
            self._draw(moment)

    def _draw(self, moment: Moment) -> None:
        exhibits = self._exhibits
        self._audience.tracker.set_reason("Sampling", f"{len(exhibits.pictures)} pictures of {moment.label}")
        is_base = moment.step == 0
        with exhibits.result():
            if is_base:
                with exhibits.adapters.disabled():
                    images = exhibits.painter.draw(exhibits.pictures, None)
            else:
                images = exhibits.painter.draw(exhibits.pictures, exhibits.adapters)
        for place, (picture, image) in enumerate(zip(exhibits.pictures, images, strict=True)):
            tag = None if is_base else lora_tag(moment.adapter_name(exhibits.name), picture.weight)
            parameters = picture.parameters(model=exhibits.base_name, lora=tag)
            path = self._path(moment, place)
            self._output.write(path, partial(write_picture, image, parameters=parameters))
            self._output.publish(path, "sample", epoch=self._plan.epoch_of(moment.step), step=moment.step)

    def _publish_sheet(self, path: str, step: int, epoch: int) -> None:
        self._output.fetch_back("sample")
        drawn = self._drawn(Moment(step, epoch))
        columns = {moment: [self._output.local(path) for path in self._paths(moment)] for moment in drawn}
        shown = {moment: files for moment, files in columns.items() if moment.step <= step}
        self._output.write(path, partial(write_sheet, self._exhibits.pictures, shown))
        self._output.publish(path, "sheet", epoch=epoch, step=step)

    def _drawn(self, *last: Moment) -> list[Moment]:
        """Moments of which every picture is published; `last` may be where the training ended early."""
        published = {file.path for file in self._output.files}
        plan = self._plan
        epochs = [Moment(plan.steps_until(epoch), epoch) for epoch in plan.sample_epochs]
        moments = [*epochs, *(Moment(step) for step in plan.sample_steps)]
        if self._exhibits.pictures:
            moments = list(dict.fromkeys((*moments, *last)))
        return [moment for moment in moments if published.issuperset(self._paths(moment))]

    def _paths(self, moment: Moment) -> list[str]:
        return [self._path(moment, place) for place in range(len(self._exhibits.pictures))]

    def _path(self, moment: Moment, place: int) -> str:
        return f"samples/{moment.picture_name(self._exhibits.name, place)}"
