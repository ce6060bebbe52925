"""Throughput: iperf3 from the client to one pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.bench.services import CLIENT
from userproxy.bench.site import find_program, settle
from userproxy.bench.workloads.base import MeasurementError, Outcome, RepeatedWorkload, Settings

if TYPE_CHECKING:
    from userproxy.bench.paths.base import Path

_ATTEMPTS = 3
_BUSY = "busy"


class _Received(msgspec.Struct, frozen=True):
    bits_per_second: float


class _End(msgspec.Struct, frozen=True):
    sum_received: _Received | None = None


class _Result(msgspec.Struct, frozen=True):
    end: _End = _End()
    error: str = ""


def parse(output: str) -> float:
    """The bits a second that the server received, of what `iperf3 --json` prints.

    Raises:
        MeasurementError: it is not that, or tells of an error.
    """
    try:
        result = msgspec.json.decode(output, type=_Result)
    except msgspec.DecodeError as error:
        raise MeasurementError(f"iperf3's output is not understood ({error})") from None
    if result.error:
        raise MeasurementError(f"iperf3: {result.error}")
    if result.end.sum_received is None or result.end.sum_received.bits_per_second <= 0:
        raise MeasurementError("iperf3: nothing was received")
    return result.end.sum_received.bits_per_second


class Throughput(RepeatedWorkload):
    """Bits a second from the client to the pod.

    Args:
        streams: connections that carry bytes at the same time.
    """

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self.name = f"t{streams}"
        self.title = f"throughput of {streams} stream{'s' if streams > 1 else ''}"

    def measure(self, path: Path, step: int, settings: Settings) -> list[Outcome]:  # noqa: ARG002 - one step
        """The throughput, the first seconds left out."""
        bits = self._run(path, settings)
        return [Outcome(f"throughput_{self.streams}", bits / 1e9)]

    def _run(self, path: Path, settings: Settings) -> float:
        where = ("--client", path.bulk.ip, "--port", str(path.bulk.port))
        argv = (*where, "--json", "--parallel", str(self.streams), "--time", str(settings.seconds))
        omit = ("--omit", str(settings.warmup)) if settings.warmup else ()
        timeout = settings.seconds + settings.warmup + 20.0
        for _ in range(_ATTEMPTS):
            # With an error too there is JSON, and it says more than the exit code.
            done = path.site.lab.exec(
                CLIENT.name, find_program("iperf3"), *argv, *omit, check=False, timeout=timeout
            )
            if _BUSY not in done.stdout:
                break
            settle(0.5)  # the server has not noticed the end of the last one
        return parse(done.stdout)
