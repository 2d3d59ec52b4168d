"""How commands reach a run or folder that no LoraTraining names: its place, and options for an S3 server.

Used by `report` and `compare`, and by other commands that read `s3://` without a file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from lora_api.cluster_spec import Storage
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.settings import Settings

if TYPE_CHECKING:
    # boto3 takes a second to import; `lora --help` and others do without it.
    from lora_trainer.storage import Connection, Store

Endpoint = Annotated[
    str | None, typer.Option("--endpoint", help="URL of the S3 server, such as https://minio.example.com. Default: AWS")
]
Region = Annotated[str | None, typer.Option("--region", help="Region of the bucket.")]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Send unsigned requests.")]

_TRAINING_FILES = (".yaml", ".yml")


@dataclass(frozen=True)
class S3Options:
    """What the options say."""

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False

    def connection(self) -> "Connection":
        """How `s3://` is reached; keys come from where boto3 looks for them. Raises InvalidConfiguration."""
        from lora_trainer.storage import Connection  # noqa: PLC0415  (boto3)

        try:
            storage = Storage(endpoint=self.endpoint, region=self.region, anonymous=self.anonymous)
        except ValidationError as error:
            problem = error.errors()[0]
            raise InvalidConfiguration(
                f"--{problem['loc'][0]} is {problem['input']!r}: {problem['msg']}; write it as "
                "https://minio.example.com:9000",
                hint="",
            ) from error
        return Connection(storage, Settings.from_environment())


def uri_of(place: str) -> str:
    """`place` as a URI: `s3://…`, `pvc://…` and `file://…` as they are, anything else is a path of this machine."""
    return place if "://" in place else Path(place).absolute().as_uri()


def open_place(place: str, options: S3Options, *, field: str = "RUN") -> "Store":
    """The store at `place`: a URI, a folder, or the LoraTraining file of which it is the output.

    `field` is the argument that names it, for errors.

    Raises:
        InvalidConfiguration: the place cannot be read so.
        AccessDenied, StorageUnavailable: as the store answers.
    """
    from lora_trainer.storage import Connection, open_store  # noqa: PLC0415  (boto3)

    if place.endswith(_TRAINING_FILES) and "://" not in place:
        spec = load_training_file(Path(place)).spec
        connection = Connection.for_section(spec, Settings.from_environment(), "output")
        return open_store(spec.output.uri, connection, field="spec.output.uri", on_bytes=_not_counted)
    return open_store(uri_of(place), options.connection(), field=field, on_bytes=_not_counted)


def _not_counted(count: int) -> None:
    """Nobody watches how many bytes these commands read."""
