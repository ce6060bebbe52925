"""`python -m userproxy` is `userproxy`."""

from __future__ import annotations

from userproxy.cli.main import main

main()
