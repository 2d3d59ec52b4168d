"""How the API server is reached: kubeconfig, or the pod's ServiceAccount. Used by `cluster` and `handlers`."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException

from lora_operator.errors import ClusterUnavailable, SettingsError


@dataclass(frozen=True)
class Connection:
    """Address of the API server, and who we are to it."""

    _configuration: Any

    @classmethod
    async def open(cls, kubeconfig: str | None) -> "Connection":
        """Reads the kubeconfig (None: the pod's ServiceAccount). Raises SettingsError."""
        configuration = Configuration()
        try:
            if kubeconfig is None:
                config.load_incluster_config(client_configuration=configuration)
            else:
                await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        except (ConfigException, OSError) as error:
            source = f"KUBECONFIG {kubeconfig}" if kubeconfig else "the pod's ServiceAccount"
            raise SettingsError(f"{source} does not say how to reach the API server: {error}") from error
        return cls(configuration)

    @property
    def url(self) -> str:
        """Base URL of the API server."""
        return str(self._configuration.host).rstrip("/")

    @property
    def ca_path(self) -> str | None:
        """File with the certificates that the server's is checked against."""
        return self._configuration.ssl_ca_cert or None

    @property
    def verifies(self) -> bool:
        """Whether the server's certificate is checked."""
        return bool(self._configuration.verify_ssl)

    @property
    def client_certificate(self) -> tuple[str, str] | None:
        """Files with our certificate and key, if we have one."""
        if not self._configuration.cert_file:
            return None
        return self._configuration.cert_file, self._configuration.key_file

    async def authorization(self) -> str | None:
        """The value of the Authorization header; read anew, since tokens are replaced while we run.

        Raises:
            ClusterUnavailable: the token cannot be read now.
        """
        try:
            settings = await self._configuration.auth_settings()
        except (ConfigException, OSError) as error:
            raise ClusterUnavailable(f"the token for the API server cannot be read: {error}") from error
        token = settings.get("BearerToken", {}).get("value")
        return str(token) if token else None

    async def ssl_context(self) -> ssl.SSLContext | None:
        """TLS as the connection wants it; None for plain http."""
        if not self.url.startswith("https:"):
            return None
        # Loading certificates reads files: not on the event loop.
        return await asyncio.to_thread(self._build_ssl_context)

    def _build_ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_path)
        if self.client_certificate:
            context.load_cert_chain(*self.client_certificate)
        if not self.verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
