"""Who answers for a lab: a process that lives, or, once it was left running, the lab's own processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from userproxy.lab import processes
from userproxy.lab.network import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_DETACHED = "detached"


class Claim:
    """A lab's directory, which is whose who made it; its file `owner` says who that is."""

    def __init__(self, directory: Path, namespaces: Iterable[str]) -> None:
        self._directory = directory
        self._namespaces = tuple(namespaces)
        self._owner = directory / "owner"

    def take(self) -> None:
        """Make the directory, for this process.

        Raises:
            LabError: it exists.
        """
        while True:
            try:
                self._directory.parent.mkdir(parents=True, exist_ok=True)
                self._directory.mkdir()
            except FileNotFoundError:
                continue  # another lab, at its end, has just taken away the empty directories above
            except FileExistsError as error:
                if error.filename != str(self._directory) and not self._directory.parent.is_file():
                    continue  # one of those that are above, likewise, while it was looked at
                name = self._directory.name
                raise LabError(f"lab {name} is just being brought up by somebody else") from None
            break
        self._owner.write_text(f"{os.getpid()} {processes.started_at(os.getpid())}")

    def leave(self) -> None:
        """From now on the lab's processes answer for it."""
        self._owner.write_text(_DETACHED)

    def holds(self) -> bool:
        """Whether somebody still answers for the lab."""
        try:
            owner = self._owner.read_text()
        except OSError:
            return False
        if owner == _DETACHED:
            return bool(processes.running_in(self._namespaces))
        pid, _, start = owner.partition(" ")
        return str(processes.started_at(int(pid))) == start
