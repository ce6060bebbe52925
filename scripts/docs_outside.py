"""A hook of mkdocs: pages link to files beside docs/ (a plot, a README), and the site has copies of these."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_OUTSIDE = "outside"
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in what pages link to outside of docs/, and what that links to in turn."""
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    seen: set[Path] = set()
    while waiting:
        for target in _outside(waiting.pop()):
            if target not in seen:
                seen.add(target)
                name = f"{_OUTSIDE}/{target.relative_to(ROOT)}"
                files.append(File.generated(config, name, abs_src_path=str(target)))
                waiting += [target] if target.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - as mkdocs calls it
    """Have links to such files lead to the copies, and theirs to the pages."""
    source, here = Path(page.file.abs_src_path or ""), posixpath.dirname(page.file.src_uri) or "."

    def moved(link: re.Match[str]) -> str:
        target = (source.parent / link[1]).resolve()
        if target.is_relative_to(DOCS):
            return posixpath.relpath(str(target.relative_to(DOCS)), here)
        if target.is_relative_to(ROOT):
            return posixpath.relpath(f"{_OUTSIDE}/{target.relative_to(ROOT)}", here)
        return link[1]

    return _LINK.sub(moved, markdown)


def _outside(page: Path) -> Iterator[Path]:
    for link in _LINK.findall(page.read_text()):
        target = (page.parent / link).resolve()
        if target.is_file() and target.is_relative_to(ROOT) and not target.is_relative_to(DOCS):
            yield target
