"""The configuration: one frozen, validated struct, from a file and from flags."""

from __future__ import annotations

from userproxy.config.load import THIS_NODE, ConfigError, Reading, complete, lacks, lacks_source, load, read
from userproxy.config.node import is_own_address, primary_address
from userproxy.config.settings import AccessLog, Config, LogFormat, LogLevel, Setting, Settings, declared
from userproxy.config.values import Value

__all__ = [
    "THIS_NODE",
    "AccessLog",
    "Config",
    "ConfigError",
    "LogFormat",
    "LogLevel",
    "Reading",
    "Setting",
    "Settings",
    "Value",
    "complete",
    "declared",
    "is_own_address",
    "lacks",
    "lacks_source",
    "load",
    "primary_address",
    "read",
]
