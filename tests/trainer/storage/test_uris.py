"""URIs of the spec and the places that they mean."""

from pathlib import Path

import pytest

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.storage.uris import DiskPlace, HubPlace, S3Place, is_safe_key, join_uri, parse_uri

CLAIMS = Path("/mnt/claims")


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://lora", S3Place("lora", "")),
        ("s3://lora/", S3Place("lora", "")),
        ("s3://lora/a/b/", S3Place("lora", "a/b")),
        ("hf://owner/repo", HubPlace("owner/repo", None)),
        ("hf://owner/repo@v1.0", HubPlace("owner/repo", "v1.0")),
        ("pvc://models/sd15", DiskPlace(Path("/mnt/claims/models/sd15"), Path("/mnt/claims/models"))),
        ("pvc://models", DiskPlace(Path("/mnt/claims/models"), Path("/mnt/claims/models"))),
        ("file:///data/x y", DiskPlace(Path("/data/x y"))),
    ],
)
def test_a_uri_names_a_place(uri: str, place: object) -> None:
    assert parse_uri(uri, claims_dir=CLAIMS, field="spec.dataset.uri") == place


@pytest.mark.parametrize("uri", ["gs://bucket/x", "/data/x", "s3:bucket"])
def test_other_schemes_are_refused_by_field(uri: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"spec\.dataset\.uri is .*, which is no URI that works here"):
        parse_uri(uri, claims_dir=CLAIMS, field="spec.dataset.uri")


@pytest.mark.parametrize("uri", ["pvc://claim/../other", "pvc:///etc", "pvc://"])
def test_a_path_that_leaves_its_claim_is_refused(uri: str) -> None:
    with pytest.raises(InvalidConfiguration, match="leaves its claim"):
        parse_uri(uri, claims_dir=CLAIMS, field="spec.output.uri")


def test_keys_are_joined_with_a_slash() -> None:
    assert S3Place("b", "data").key("a.png") == "data/a.png"
    assert S3Place("b", "").key("a.png") == "a.png"
    assert S3Place("b", "data").listing_prefix == "data/"
    assert S3Place("b", "").listing_prefix == ""


def test_a_file_below_a_uri() -> None:
    assert join_uri("s3://b/run/", "adapters/x.safetensors") == "s3://b/run/adapters/x.safetensors"


@pytest.mark.parametrize(
    ("key", "safe"),
    [("a/b.png", True), ("a", True), ("..a", True), ("", False), ("/a", False), ("a/", False), ("a/../b", False),
     ("a\0b", False)],
)  # fmt: skip
def test_only_keys_of_files_inside_the_folder_are_safe(key: str, safe: bool) -> None:
    assert is_safe_key(key) is safe


def test_a_file_uri_is_read_as_programs_write_it_and_as_people_do() -> None:
    places = [parse_uri(uri, claims_dir=Path("/claims"), field="x") for uri in ("file:///a%20b/c", "file:///a b/c")]

    assert places == [DiskPlace(Path("/a b/c"))] * 2
