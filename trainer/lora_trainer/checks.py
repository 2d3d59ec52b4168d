"""What can be found wrong with a training before anything is fetched, beyond what the API's own rules say.

Used by `lora validate`, `lora plan` and `lora run`.
"""

from collections.abc import Iterator

from lora_api.spec import LoraTraining, LoraTrainingSpec
from lora_trainer.data.buckets import placing
from lora_trainer.errors import InvalidConfiguration


def check_training(training: LoraTraining) -> None:
    """Raises InvalidConfiguration with everything that is wrong with `training`."""
    problems = list(problems_with(training.spec))
    if problems:
        raise InvalidConfiguration("\n".join(problems))


def problems_with(spec: LoraTrainingSpec) -> Iterator[str]:
    """One sentence for each thing that is wrong, with the field by its YAML path and the cure."""
    yield from _bucket_problems(spec)
    yield from _folder_problems(spec)
    yield from _caption_problems(spec)
    yield from _grid_problems(spec)


def _bucket_problems(spec: LoraTrainingSpec) -> Iterator[str]:
    try:
        placing(spec.dataset.size_px, spec.dataset.buckets)
    except InvalidConfiguration as error:
        yield str(error)


def _folder_problems(spec: LoraTrainingSpec) -> Iterator[str]:
    """A folder that is named twice would be trained twice; `/` at the end does not make it another one."""
    seen: dict[str, int] = {}
    for index, subset in enumerate(spec.dataset.subsets):
        first = seen.setdefault(subset.uri.rstrip("/"), index)
        if first != index:
            yield (
                f"spec.dataset.subsets[{index}].uri is {subset.uri}, the folder of spec.dataset.subsets[{first}]; "
                "join the two entries and add up their repeats"
            )


def _caption_problems(spec: LoraTrainingSpec) -> Iterator[str]:
    """What a subset's captions become with those of the dataset; each alone is in order."""
    for index, subset in enumerate(spec.dataset.subsets):
        if subset.captions is None:
            continue
        captions, field = subset.captions.applied_to(spec.dataset.captions), f"spec.dataset.subsets[{index}].captions"
        markers = {
            "secondarySeparator": captions.secondary_separator,
            "keepTokensSeparator": captions.keep_tokens_separator,
        }
        for name, marker in markers.items():
            if marker == captions.separator:
                yield f"{field}: {name} and separator are both '{marker}' with what the dataset sets; change one"
        steps, most = captions.token_warmup and captions.token_warmup.steps, spec.training.max_steps
        if steps and most and steps > most:
            yield f"{field}.tokenWarmup.steps is {steps}, but spec.training.maxSteps is {most}; lower it"


def _grid_problems(spec: LoraTrainingSpec) -> Iterator[str]:
    grid = spec.evaluation.grid if spec.evaluation is not None else None
    if grid is not None and not grid.prompts and not spec.samples.prompts:
        yield "spec.evaluation.grid.prompts and spec.samples.prompts are both empty; add a prompt, or remove the grid"
