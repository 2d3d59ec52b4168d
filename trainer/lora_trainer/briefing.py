"""What the first process tells the others before they train together. Sent by `run`, received by `follow`.

It decides alone what is to be done, and what a model said of pictures without captions; all else each finds for itself,
and must find the same.
"""

import json
from dataclasses import asdict, dataclass

from lora_api.status import MemoryRung
from lora_trainer.captioning.records import CaptionRecord
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.prepare import Prepared
from lora_trainer.results import RunIdentity
from lora_trainer.world import World


@dataclass(frozen=True)
class Briefing:
    """A training that is to be done."""

    identity: RunIdentity
    captions: tuple[CaptionRecord, ...]
    """Those that were generated."""
    rungs: tuple[MemoryRung, ...]
    """What earlier starts gave up for memory."""

    def to_bytes(self) -> bytes:
        """As JSON."""
        content = {
            "identity": asdict(self.identity),
            "captions": [asdict(record) for record in self.captions],
            "rungs": [rung.model_dump(mode="json", by_alias=True) for rung in self.rungs],
        }
        return json.dumps(content).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Briefing":
        """What `to_bytes` gave."""
        content = json.loads(data)
        return cls(
            RunIdentity(**content["identity"]),
            tuple(CaptionRecord(**record) for record in content["captions"]),
            tuple(MemoryRung.model_validate(rung) for rung in content["rungs"]),
        )


def brief(world: World, briefing: Briefing | None) -> None:
    """Tells the others what to do; None: nothing is left to be trained. Raises PeerLost."""
    world.from_lead(briefing.to_bytes() if briefing else b"")


def briefed(world: World) -> Briefing | None:
    """What the first process told. Raises PeerLost."""
    data = world.from_lead(b"")
    return Briefing.from_bytes(data) if data else None


def check_same(prepared: Prepared, briefing: Briefing, world: World) -> None:
    """Raises InvalidConfiguration when this process found another base model or other pictures than the first one."""
    mine, lead = asdict(prepared.identity), asdict(briefing.identity)
    other = [name for name in mine if mine[name] != lead[name]]
    if other:
        found = "; ".join(f"{name} {mine[name]}, there {lead[name]}" for name in other)
        raise InvalidConfiguration(
            f"process {world.rank} finds something else at the same URIs than the first one ({found}); give every node "
            "the same version, the same files and the same spec"
        )
