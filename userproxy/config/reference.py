"""The parts of docs/configuration.md that are made of the code: tables of settings, ours and kube-proxy's."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

from userproxy.config.kube_proxy import DANGEROUS, FIELDS, OF_BOTH
from userproxy.config.settings import GROUPS, declared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from userproxy.config.settings import Setting

_PART = re.compile(r"(<!-- made: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(page: str) -> str:
    """A page with its marked parts made anew: what stands from `<!-- made: NAME -->` to `<!-- end -->`."""
    return _PART.sub(lambda part: f"{part[1]}\n{_PARTS[part[2]]()}\n\n{part[3]}", page)


def settings() -> str:
    """Our settings, a table for each group."""
    tables = []
    for group in GROUPS.values():
        rows = [_row(setting) for setting in declared() if setting.group == group]
        tables.append(f"### {group}\n\n{_table(('setting', 'value', 'default', 'what it does'), rows)}")
    return "\n\n".join(tables)


def kube_proxy_used() -> str:
    """kube-proxy's settings that mean something here."""
    keys = {setting.field: setting.key for setting in declared()}
    used = [field for field in FIELDS if field.setting]
    rows = [(_code(field.path), _code(_dashed(field.flag)), _code(keys[field.setting])) for field in used]
    flags = ", ".join(_code(f"--{flag}") for flag in OF_BOTH)
    table = _table(("in its file", "its flag", "our setting"), rows)
    return f"{table}\n\nThese flags have the same name and meaning: {flags}."


def kube_proxy_idle() -> str:
    """kube-proxy's settings that mean nothing here."""
    rows = [
        (_code(field.path), _code(_dashed(field.flag)))
        for field in FIELDS
        if not field.setting and (field.path or field.flag)
    ]
    return _table(("in its file", "its flag"), rows)


def kube_proxy_refused() -> str:
    """kube-proxy's flags that are an error here."""
    return _table(("flag", "instead"), [(_code(f"--{flag}"), remedy) for flag, remedy in DANGEROUS.items()])


_PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "kube-proxy-used": kube_proxy_used,
    "kube-proxy-idle": kube_proxy_idle,
    "kube-proxy-refused": kube_proxy_refused,
}


def _row(setting: Setting) -> tuple[str, ...]:
    kind = setting.kinds[0]
    if issubclass(kind, enum.Enum):
        value = ", ".join(_code(each.value) for each in kind)
    else:
        value = setting.metavar or {"Path": "PATH", "str": "TEXT"}[kind.__name__]
    default = setting.default if " " in setting.default else _code(setting.default)
    envvar = f" In the environment: {_code(setting.envvar)}." if setting.envvar else ""
    return _code(setting.key), value, default, setting.help + envvar


def _dashed(flag: str) -> str:
    return f"{'-' if len(flag) == 1 else '--'}{flag}" if flag else ""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
