"""What docs/ends.md says is what the code does."""

from __future__ import annotations

from pathlib import Path

from userproxy.model.access_line import AccessLine
from userproxy.model.endings import Reason
from userproxy.model.told import access_log, reasons, renewed

PAGE = Path(__file__).parents[3] / "docs" / "ends.md"


def test_the_page_is_as_it_would_be_made_anew() -> None:
    page = PAGE.read_text()
    assert page == renewed(page), "make it anew with scripts/docs"


def test_each_reason_and_each_field_is_on_it() -> None:
    assert all(f"| `{reason}` |" in reasons() for reason in Reason)
    assert all(f"| `{field}` |" in access_log() for field in AccessLine.__struct_fields__)
