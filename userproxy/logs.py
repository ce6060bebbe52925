"""How the daemon's log looks: events with fields, one a line, on stderr."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, TextIO, cast

import structlog

from userproxy.model.levels import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict, Processor

# What a pipe that is writable takes without waiting: PIPE_BUF, pipe(7).
_CHUNK = 4096


# What each line has, in this order, before whatever else it tells.
_FIRST = ("timestamp", "level", "event")


class Log(io.TextIOBase):
    """Writes to a file, and waits for no reader: what a full or broken pipe does not take is lost.

    Nobody's connection is to wait, or to fail, for a log.
    """

    def __init__(self, fd: int) -> None:
        self._fd = _own_end(fd)
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


class _Logger(structlog.make_filtering_bound_logger(logging.INFO)):  # type: ignore[misc]  # made at run time
    """The class of all loggers, for the level to be changed of those that are in use."""


def level() -> str:
    """The severity from which on there are lines."""
    return next(
        name for name in LEVELS if _Logger.__bases__ == (structlog.make_filtering_bound_logger(name),)
    )


def set_level(level: str) -> None:
    """Log from this severity on: one of `LEVELS`."""
    _Logger.__bases__ = (structlog.make_filtering_bound_logger(level),)


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
        renderers = [
            structlog.processors.dict_tracebacks,
            _in_order,
            structlog.processors.JSONRenderer(),
        ]
    else:
        colors = sys.stderr.isatty()
        renderers = [
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
        ]
    set_level(level)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=_Logger,
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


def _in_order(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    """What every line has comes first."""
    first = {key: event_dict.pop(key) for key in _FIRST if key in event_dict}
    return {**first, **event_dict}


def _own_end(fd: int) -> int:
    """Of a pipe, an end of our own that never waits: O_NONBLOCK on the one given would be others' too.

    That there is room is not enough to know: whoever else writes to it may take that in the meantime.
    """
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        with contextlib.suppress(OSError):  # not ours to open, or no /proc
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return fd


def _stderr() -> TextIO:
    try:
        return cast("TextIO", Log(sys.stderr.fileno()))
    except OSError:  # no file: somebody has put something else in its place
        return sys.stderr
