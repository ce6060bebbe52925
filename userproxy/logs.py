"""How the daemon's log looks: events with fields, one a line, on stderr."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import Processor

# What a pipe that is writable takes without waiting: PIPE_BUF, pipe(7).
_CHUNK = 4096


class Log(io.TextIOBase):
    """Writes to a file, and waits for no reader: what a full or broken pipe does not take is lost.

    Nobody's connection is to wait, or to fail, for a log.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, text: str) -> int:
        """Write what can be written now; returns the length of the whole, as if all of it could."""
        data = text.encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            for start in range(0, len(data), _CHUNK):
                if not self._poll.poll(0):
                    break
                os.write(self._fd, data[start : start + _CHUNK])
        return len(text)


def configure_logging(style: str, level: str) -> None:
    """Set structlog up, and let the libraries' own log lines pass through it from `warning` on.

    Args:
        style: `json` or `console`.
        level: `debug`, `info`, `warning` or `error`.
    """
    stream = _stderr()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Processor]
    if style == "json":
        renderers = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        colors = sys.stderr.isatty()
        renderers = [
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
        ]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Log nothing meanwhile: what there is to say is told otherwise."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable()
    try:
        yield
    finally:
        structlog.configure(**before)
        logging.disable(logging.NOTSET)


def _stderr() -> TextIO:
    try:
        return cast("TextIO", Log(sys.stderr.fileno()))
    except OSError:  # no file: somebody has put something else in its place
        return sys.stderr
