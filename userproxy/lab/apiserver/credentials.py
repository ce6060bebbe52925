"""Who may speak to the API server, as files: the administrator, the ServiceAccounts, their kubeconfigs."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
from typing import TYPE_CHECKING

from userproxy.lab.network import LabError

if TYPE_CHECKING:
    from pathlib import Path

ISSUER = "https://kubernetes.default.svc"


class Credentials:
    """The files of one cluster, in its directory. The serving certificate is the API server's own doing.

    Attributes:
        admin_token: of the user `admin`, who is in the group system:masters.
    """

    def __init__(self, directory: Path, url: str) -> None:
        """Writes the token file and the ServiceAccount key into `directory`; `url` is the API server's.

        Raises:
            LabError: openssl is missing or failed.
        """
        self._directory = directory
        self._url = url
        self.admin_token = secrets.token_urlsafe(24)
        tokens = directory / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f"{self.admin_token},admin,admin,system:masters\n")
        self._make_service_account_key()

    @property
    def ca_file(self) -> Path:
        """PEM of the serving certificate and the throw-away authority that signed it."""
        return self._directory / "certificates" / "apiserver.crt"

    @property
    def apiserver_flags(self) -> list[str]:
        """What makes kube-apiserver use these files, and make its own certificate beside them once."""
        key = self._directory / "service-account.key"
        return [
            f"--cert-dir={self.ca_file.parent}",
            f"--token-auth-file={self._directory / 'tokens.csv'}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        ]

    def write_admin_kubeconfig(self, path: Path) -> None:
        """Writes a kubeconfig in the group system:masters. The API server must have made its certificate."""
        self.write_kubeconfig(path, "admin", self.admin_token)

    def write_kubeconfig(self, path: Path, user: str, token: str) -> None:
        """Writes a self-contained kubeconfig (JSON, which is YAML): the certificate is in it as data."""
        authority = base64.b64encode(self.ca_file.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
            "clusters": [
                {"name": "lab", "cluster": {"server": self._url, "certificate-authority-data": authority}}
            ],
            "users": [{"name": user, "user": {"token": token}}],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=2) + "\n")

    def _make_service_account_key(self) -> None:
        key = self._directory / "service-account.key"
        # ecparam and not genpkey: the API server reads a public key out of SEC 1, but not out of PKCS 8.
        command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
        try:
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603 our own argv
        except FileNotFoundError as error:
            raise LabError("openssl is not installed: it makes the key of the ServiceAccounts") from error
        except subprocess.CalledProcessError as error:
            raise LabError(f"openssl ecparam failed: {error.stderr.decode().strip()}") from error
