"""`/configz` and `/flagz`: what the daemon has been told. There is no secret in it: only names of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.config import declared

if TYPE_CHECKING:
    from userproxy.config import Config

_HEAD = """
userproxy flags
Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.

"""  # noqa: E501 - as the components of Kubernetes begin it


def configz(config: Config) -> bytes:
    """JSON as kube-proxy has it: an object of settings under the name of the group that they belong to."""
    settings = {setting.key: getattr(config, setting.field) for setting in declared()}
    return msgspec.json.encode({"userproxy.dev": settings}, enc_hook=str)


def flagz(config: Config) -> str:
    """A line for each flag, as kube-proxy has it."""
    values = {setting.key: getattr(config, setting.field) for setting in declared()}
    return _HEAD + "".join(f"{key}={_written(values[key])}\n" for key in sorted(values))


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
