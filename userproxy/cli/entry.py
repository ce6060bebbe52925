"""The console script: a daemon that would be the first process of a container gets another one above it.

It imports next to nothing: what it imports, that process keeps in memory.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

VARIABLE = "USERPROXY_INIT"
"""Set to anything, it asks for that process where the daemon would not be the first one either."""


def main() -> NoReturn:
    """Run the command line; `userproxy run` as the first process of a container, below another one."""
    asked = os.environ.pop(VARIABLE, "")
    if sys.argv[1:2] == ["run"] and (asked or os.getpid() == 1):
        from userproxy.cli.init import supervise  # noqa: PLC0415 - one of the two is imported

        sys.exit(supervise([sys.executable, *sys.orig_argv[1:]]))
    from userproxy.cli.main import main as command_line  # noqa: PLC0415 - likewise

    command_line()


if __name__ == "__main__":
    main()
