"""lora_operator.connection and what lora_operator.handlers makes of it"""

import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_operator.connection import Connection
from lora_operator.errors import SettingsError
from lora_operator.handlers import build_settings, open_session, trace_watches


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> str:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


async def test_a_token_is_sent(tmp_path: Path) -> None:
    connection = await Connection.open(kubeconfig(tmp_path, {"server": "http://127.0.0.1:1/"}, {"token": "abc"}))

    assert connection.url == "http://127.0.0.1:1"
    assert await connection.authorization() == "Bearer abc"
    assert await connection.ssl_context() is None


async def test_without_a_token_nothing_is_sent(tmp_path: Path) -> None:
    connection = await Connection.open(kubeconfig(tmp_path, {"server": "http://127.0.0.1:1"}, {}))

    assert await connection.authorization() is None


async def test_a_certificate_that_shall_not_be_checked_is_not(tmp_path: Path) -> None:
    cluster = {"server": "https://127.0.0.1:1", "insecure-skip-tls-verify": True}
    connection = await Connection.open(kubeconfig(tmp_path, cluster, {}))

    context = await connection.ssl_context()

    assert context is not None
    assert context.verify_mode == ssl.CERT_NONE


async def test_certificates_are_checked_by_default(tmp_path: Path) -> None:
    connection = await Connection.open(kubeconfig(tmp_path, {"server": "https://127.0.0.1:1"}, {}))

    context = await connection.ssl_context()

    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


async def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        await Connection.open(str(tmp_path / "nowhere"))


async def test_outside_a_cluster_the_service_account_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(SettingsError, match="ServiceAccount"):
        await Connection.open(None)


async def test_kopf_connects_as_we_do(tmp_path: Path) -> None:
    connection = await Connection.open(kubeconfig(tmp_path, {"server": "http://127.0.0.1:1"}, {"token": "abc"}))

    session = await open_session(connection, trace_watches(lambda path: None))
    headers = session.aiohttp_session.headers
    await session.aiohttp_session.close()

    assert (session.server, headers["Authorization"]) == ("http://127.0.0.1:1", "Bearer abc")


@pytest.mark.parametrize(("namespaces", "disabled"), [((), False), (("ml",), True)])
def test_kopf_posts_nothing_and_scans_only_a_whole_cluster(namespaces: tuple[str, ...], disabled: bool) -> None:
    settings = build_settings(namespaces)

    assert settings.posting.enabled is False
    assert settings.scanning.disabled is disabled
