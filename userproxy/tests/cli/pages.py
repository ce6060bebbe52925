"""The commands that README and the pages in docs/ have a reader type."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"^( *)```(?:sh|bash)?\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`(userproxy [^`\n]+)`(?!`)")


def blocks(page: Path) -> list[list[str]]:
    """The commands in each of a page's blocks without a language; what they print is left out."""
    return [commands for _, text in _BLOCK.findall(page.read_text()) if (commands := _commands(text))]


def mentions(page: Path) -> list[str]:
    """The commands that a page names in a line of text."""
    return _INLINE.findall(page.read_text())


def _commands(text: str) -> list[str]:
    lines = re.sub(r"\\\n *", "", text).splitlines()
    # With prompts, the other lines are what is printed.
    prompted = [line.strip()[2:] for line in lines if line.strip().startswith("$ ")]
    found = prompted or [line.strip() for line in lines]
    return [re.sub(r"\s{2,}# .*", "", line) for line in found if re.match(r"(userproxy|curl|\. ) ?", line)]
