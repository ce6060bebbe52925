"""The severities of log lines. Pure."""

from __future__ import annotations

LEVELS = ("debug", "info", "warning", "error")
"""From the least on."""
