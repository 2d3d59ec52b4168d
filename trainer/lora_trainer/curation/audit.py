"""Everything that is wrong with a dataset, found at once. Used by `lora captions audit`."""

from collections.abc import Callable
from dataclasses import dataclass

from lora_api.dataset_spec import Dataset
from lora_trainer.curation.caption_checks import CountTokens, check_captions, check_lengths, check_trigger
from lora_trainer.curation.findings import Finding, Kind, Severity, finding_of
from lora_trainer.curation.picture_checks import check_pictures
from lora_trainer.curation.pictures import Material, read_material
from lora_trainer.curation.tag_checks import check_tags, tag_files
from lora_trainer.data.listing import DatasetSources, Listing
from lora_trainer.errors import InvalidDataset


@dataclass(frozen=True)
class Wanted:
    """What an audit cannot know of itself."""

    trigger: str = ""
    """Words that call the adapter up; without them no caption is checked for them."""
    rare_share: float = 0.15
    """Tags on a smaller share of the captions are rare."""


@dataclass(frozen=True)
class Audit:
    """What was looked at, and what was found."""

    pictures: int
    regularization_pictures: int
    captions: int
    """Pictures to be learnt that have a caption of their own."""
    tags: tuple[tuple[str, int], ...]
    """Tag and the number of captions to be learnt that hold it, most frequent first."""
    findings: tuple[Finding, ...]
    """In the order of their kinds, then of files."""

    def count(self, severity: Severity) -> int:
        """How many findings are so bad."""
        return sum(finding.kind.severity == severity for finding in self.findings)


def audit(
    sources: DatasetSources,
    spec: Dataset,
    wanted: Wanted,
    count_tokens: CountTokens,
    *,
    on_picture: Callable[[], None] = lambda: None,
) -> Audit:
    """Reads and checks a dataset; `spec` says how it would be trained, `on_picture` is called after each picture.

    Raises:
        InvalidDataset: there is no picture at all.
    """
    material = read_material(sources, spec, on_picture=on_picture)
    if not material.pictures and not material.listing.problems:
        raise InvalidDataset(
            f"{spec.uri}: there are no pictures; give a folder of pictures, or one of `10_concept` folders"
        )
    findings = _findings(material, spec, wanted, count_tokens)
    order = list(Kind)
    return Audit(
        pictures=len(material.ordinary),
        regularization_pictures=len(material.pictures) - len(material.ordinary),
        captions=sum(picture.has_caption for picture in material.ordinary),
        tags=tuple((tag, len(names)) for tag, names in tag_files(material.ordinary).items()),
        # Stable: within a kind the checks' own order stays.
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.kind))),
    )


def _findings(material: Material, spec: Dataset, wanted: Wanted, count_tokens: CountTokens) -> list[Finding]:
    ordinary = material.ordinary
    found = [*_layout(material.listing), *check_pictures(material.pictures, spec)]
    found += check_captions(material.pictures, material.listing.folders)
    if wanted.trigger.strip():
        found += check_trigger(material.pictures, wanted.trigger)
    found += check_lengths(material.pictures, spec, count_tokens)
    found += check_tags(ordinary, tag_files(ordinary), rare_share=wanted.rare_share)
    # Pictures that share a caption file share what is wrong with it.
    return list(dict.fromkeys(found))


def _layout(listing: Listing) -> list[Finding]:
    """What the listing of a training complains of; its messages name the file and the cure."""
    said = [*listing.problems, *(f"{name} holds no pictures; remove it or fill it" for name in listing.empty)]
    said += [
        f"{name} is not listed in metadata.jsonl, so it is not used; list or remove it" for name in listing.unlisted
    ]
    return [finding_of(Kind.LAYOUT, sentence, ()) for sentence in said]
