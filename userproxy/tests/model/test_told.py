"""What docs/ends.md and docs/fields.md say is what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from userproxy.model.access_line import AccessLine
from userproxy.model.endings import Reason
from userproxy.model.told import ROWS, access_log, fields, reasons, renewed

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", ["ends", "fields"])
def test_the_page_is_as_it_would_be_made_anew(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    assert page == renewed(page), "make it anew with scripts/docs"


def test_each_reason_and_each_field_is_on_it() -> None:
    assert all(f"| `{reason}` |" in reasons() for reason in Reason)
    assert all(f"| `{field}` |" in access_log() for field in AccessLine.__struct_fields__)


@pytest.mark.parametrize("name", ROWS)
def test_each_field_of_a_row_is_explained(name: str) -> None:
    assert all(f"| `{field}` |" in fields(ROWS[name]) for field in ROWS[name].__struct_fields__)
