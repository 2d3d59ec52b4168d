"""lora_api.spec: every place that a training reads or writes is known by one name."""

import re

from lora_api import parse_training
from tests.support.documents import make_document

EVERY_READ = (
    (
        "baseModel",
        {
            "uri": "pvc://base/x",
            "vaeUri": "pvc://vae/x",
            "adapters": [{"uri": "pvc://first/x"}, {"uri": "pvc://second/x"}],
        },
    ),
    ("network", {"initialUri": "pvc://initial/x"}),
    ("output", {"uri": "pvc://out/x"}),
)


def test_everything_that_is_read_or_written_is_named() -> None:
    by_folder = make_document(
        *EVERY_READ,
        ("dataset", {"uri": "pvc://data/x", "regularization": {"uri": "pvc://reg/x"}, "latentCache": "Store"}),
        ("dataset.captions", {"missing": "Generate", "generate": {"modelUri": "pvc://blip/x"}}),
    )
    by_subsets = make_document(
        *EVERY_READ,
        (
            "dataset",
            {
                "subsets": [{"uri": "pvc://one/x"}, {"uri": "pvc://two/x"}],
                "latentCache": "Store",
                "cacheUri": "pvc://cache/x",
            },
        ),
    )

    for document in (by_folder, by_subsets):
        spec = parse_training(document).spec
        named = {uri.removesuffix(".latents") for uri in (*spec.read_uris, *spec.written_uris)}
        assert named == set(re.findall(r"pvc://[a-z]+/x", str(document)))


def test_the_cache_lies_beside_the_dataset_unless_said_otherwise() -> None:
    spec = parse_training(make_document(("dataset", {"uri": "s3://lora/data/", "latentCache": "Store"}))).spec

    assert spec.written_uris == (spec.output.uri, "s3://lora/data.latents")
