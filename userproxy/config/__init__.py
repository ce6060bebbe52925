"""The configuration: one frozen, validated struct, from a file and from flags."""

from __future__ import annotations

from userproxy.config.load import ConfigError, is_own_address, load, primary_address
from userproxy.config.settings import Config, LogFormat, LogLevel, Setting, Settings, declared

__all__ = [
    "Config",
    "ConfigError",
    "LogFormat",
    "LogLevel",
    "Setting",
    "Settings",
    "declared",
    "is_own_address",
    "load",
    "primary_address",
]
