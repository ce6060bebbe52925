"""What this process takes of the machine, read in microseconds."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from userproxy.model.counts import Vitals

if TYPE_CHECKING:
    from userproxy.dataplane.tcp.pipes import PipePool
    from userproxy.dataplane.udp.datagrams import Datagrams

_FILES = "/proc/self/fd"
_MEMORY = Path("/proc/self/statm")
_PAGE_BYTES = resource.getpagesize()


def vitals_of(place: int, most_connections: int, pipes: PipePool, datagrams: Datagrams) -> Vitals:
    """What the worker at this place has and takes now."""
    return Vitals(
        worker=place,
        connection_limit=most_connections,
        files=_open_files(),
        file_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        pipes=pipes.lent,
        pipe_limit=pipes.limit,
        sessions=datagrams.count,
        session_limit=datagrams.most,
        resident_bytes=int(_MEMORY.read_text().split()[1]) * _PAGE_BYTES,
    )


def _open_files() -> int:
    # The kernel tells it since 6.2; an earlier one says 0, and has them listed.
    return os.stat(_FILES).st_size or len(os.listdir(_FILES))  # noqa: PTH116, PTH208 - in microseconds
