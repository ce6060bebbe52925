"""What one process has found of backends, for another one to go on with. Pure; times in seconds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from userproxy.model.heritage import Judgement
from userproxy.model.settings import HealthCheck

if TYPE_CHECKING:
    from collections.abc import Iterable

    from userproxy.backends.backend import LiveBackend
    from userproxy.backends.service import LiveService


def judgements(service: LiveService, now: float) -> list[Judgement]:
    """Of the backends of which there is something to say."""
    found = (_judgement(live, service, now) for live in service.backends)
    return [each for each in found if not is_well(each)]


def is_well(judgement: Judgement) -> bool:
    """Whether it says no more than is known of a backend that nobody has looked at."""
    return judgement == Judgement(judgement.backend)


def learn(service: LiveService, told: Iterable[Judgement], now: float) -> None:
    """Take over what is told; the service's backends that are not among these stay as they are."""
    known = {each.backend: each for each in told}
    checked = service.pool.settings.check.kind is not HealthCheck.OFF
    for live in service.backends:
        judgement = known.get(live.address)
        if judgement is not None:
            _learn(live, judgement, now, checked=checked)
    service.rearrange()


def later(judgement: Judgement, seconds: float) -> Judgement:
    """The same, told so much later."""
    until, age = judgement.until, judgement.age
    return Judgement(
        backend=judgement.backend,
        failures=judgement.failures,
        ejections=judgement.ejections,
        hold=judgement.hold,
        until=None if until is None else until - seconds,
        recovered=judgement.recovered + seconds if judgement.ejections and until is None else 0.0,
        error=judgement.error,
        down=judgement.down,
        age=None if age is None else age + seconds,
    )


def _judgement(live: LiveBackend, service: LiveService, now: float) -> Judgement:
    outlier, age = live.outlier, now - live.came
    warms = age < (service.pool.settings.slow_start or 0.0)
    known = outlier.ejections or outlier.failures
    return Judgement(
        backend=live.address,
        failures=outlier.failures,
        ejections=outlier.ejections,
        hold=outlier.hold if known else 0.0,
        until=outlier.until - now if outlier.ejected else None,
        recovered=now - outlier.recovered if outlier.ejections and not outlier.ejected else 0.0,
        error=live.error if known else 0,
        down=live.checked.reason if live.down else None,
        age=age if warms else None,
    )


def _learn(live: LiveBackend, told: Judgement, now: float, *, checked: bool) -> None:
    outlier = live.outlier
    outlier.failures, outlier.ejections, outlier.hold = told.failures, told.ejections, told.hold
    outlier.ejected = told.until is not None
    outlier.until = 0.0 if told.until is None else now + told.until
    outlier.recovered = now - told.recovered
    live.error = told.error
    live.came = -math.inf if told.age is None else now - told.age
    if checked:
        live.checked.up = told.down is None
        live.checked.reason = told.down or ""
