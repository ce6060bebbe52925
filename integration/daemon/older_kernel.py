"""A daemon on a kernel that knows no table that is owned and stays: those before Linux 6.9."""

from __future__ import annotations

import sys

_ASKS_FOR_AN_UNKNOWN_FLAG = """
import sys
from userproxy.netfilter import ownership
ownership.OWNED |= 0x8000
from userproxy.cli.main import main
sys.argv = sys.argv[1:]
main()
"""

ON_AN_OLDER_KERNEL = (sys.executable, "-c", _ASKS_FOR_AN_UNKNOWN_FLAG)
"""What a daemon runs under there."""
