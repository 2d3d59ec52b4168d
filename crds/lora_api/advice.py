"""What is no error in a spec, but should be known before a training. Used by `lora validate` and by every plan."""

import re
from collections.abc import Iterator

from lora_api.cluster_spec import Storage
from lora_api.spec import LoraTrainingSpec

_LOOPBACK = re.compile(r"http://(localhost|127[.][0-9.]+|\[::1\])(:[0-9]+)?")


def warnings_about(spec: LoraTrainingSpec) -> Iterator[str]:
    """Warnings as whole sentences, with the field by its YAML path and the cure."""
    storages = {
        "spec.storage": spec.storage,
        "spec.baseModel.storage": spec.base_model.storage,
        "spec.dataset.storage": spec.dataset.storage,
        "spec.output.storage": spec.output.storage,
    }
    for field, storage in storages.items():
        if storage is not None and _is_overheard(storage):
            yield (
                f"{field}.endpoint is {storage.endpoint}: pictures, adapters, signed requests and session tokens "
                "travel in clear, and whoever is on the way can read and change them; use https, with caBundleRef if "
                "the certificate is your own."
            )


def _is_overheard(storage: Storage) -> bool:
    """Whether credentials are used on a connection that is not encrypted and leaves this machine."""
    endpoint = storage.endpoint or ""
    return endpoint.startswith("http://") and not storage.anonymous and not _LOOPBACK.fullmatch(endpoint)
