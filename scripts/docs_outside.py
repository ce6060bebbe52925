"""A hook of mkdocs: pages link to files beside docs/ (a plot, a README), and the site has a copy of these."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<=\]\()(?:\.\./)+([^)#\s]+)")
_TITLE = "outside"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in what pages link to outside of docs/, and what that links to in turn."""
    waiting = [file.abs_src_path for file in files.documentation_pages() if file.abs_src_path]
    seen: set[Path] = set()
    while waiting:
        page = Path(waiting.pop())
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            target = (page.parent / link).resolve()
            if "://" in link or target in seen or not target.is_file() or not _is_outside(target):
                continue
            seen.add(target)
            name = f"{_TITLE}/{target.relative_to(ROOT)}"
            files.append(File.generated(config, name, abs_src_path=str(target)))
            if target.suffix == ".md":
                waiting.append(str(target))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - as mkdocs calls it
    """Have links to such files lead to the copies."""
    if page.file.src_uri.startswith(f"{_TITLE}/"):
        return markdown
    depth = posixpath.dirname(page.file.src_uri)
    return _LINK.sub(lambda link: posixpath.relpath(f"{_TITLE}/{link[1]}", depth or "."), markdown)


def _is_outside(target: Path) -> bool:
    return target.is_relative_to(ROOT) and not target.is_relative_to(ROOT / "docs")
