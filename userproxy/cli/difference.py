"""What a plan would change about what a daemon serves: lines, as `diff` has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.model.planned import LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from userproxy.model.planned import PlannedRow
    from userproxy.model.rows import ServiceRow

_Key = tuple[str, str, str]
_Facts = dict[str, str]


def differences(running: Iterable[ServiceRow], planned: Iterable[PlannedRow]) -> Iterator[str]:
    """A line for each pool that comes (`+`), goes (`-`) or changes (`~`), sorted."""
    before = {(row.service, row.policy, row.family): _of_running(row) for row in running}
    after = {(row.service, row.policy, row.family): _of_planned(row) for row in planned}
    for key in sorted(before.keys() | after.keys()):
        if key not in before:
            yield f"+ {_named(key)}: {_told(after[key])}"
        elif key not in after:
            yield f"- {_named(key)}: {_told(before[key])}"
        elif changes := list(_changes(before[key], after[key])):
            yield f"~ {_named(key)}: {'; '.join(changes)}"


def _of_running(row: ServiceRow) -> _Facts:
    return _facts(row.path, row.listener, row.frontends)


def _of_planned(row: PlannedRow) -> _Facts:
    entries = () if row.outcome == LEFT_OUT else row.entries
    return _facts(row.path, row.listener, (entry.rpartition(" ")[2] for entry in entries))


def _facts(path: str, listener: str | None, frontends: Iterable[str]) -> _Facts:
    return {"path": path, "listener": listener or "none", "at": ",".join(sorted(frontends)) or "nowhere"}


def _changes(before: _Facts, after: _Facts) -> Iterator[str]:
    for name, value in after.items():
        if value != before[name]:
            yield f"{name} {before[name]} -> {value}"


def _told(facts: _Facts) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _named(key: _Key) -> str:
    service, policy, family = key
    return f"{service} {policy} {family}"
