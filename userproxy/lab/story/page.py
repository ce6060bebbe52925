"""Where the story is written: headings, commands, hops, and facts with their marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType


class Page:
    """What a person reads.

    Args:
        console: to write on.
        pause: called before each part, and before each hop, to wait for the reader.

    Attributes:
        held: whether every fact so far was so.
    """

    def __init__(self, console: Console, pause: Callable[[], object] | None = None) -> None:
        self.held = True
        self._console = console
        self._pause = pause
        self._begun = False

    def heading(self, text: str) -> None:
        """Begin a part."""
        if self._begun:
            self._wait()
        self._begun = True
        self._console.print(Text(f"\n{text}", style="bold"))

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(Text(f"    {text}"), soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """A table, or what a command has printed."""
        self._console.print(what, soft_wrap=isinstance(what, Text))

    def show_text(self, printed: str) -> None:
        """What a command has printed."""
        self.show(Text(printed.rstrip()))

    def prompt(self, member: str, command: str) -> None:
        """What is run in a member, as its prompt would have it."""
        self._console.print(Text(f"  {member} $ {command}", style="cyan"), soft_wrap=True)

    def hop(self, who: str, text: str, source: str) -> None:
        """One step of a way, and where it was looked up."""
        self._wait()
        line = Text(f"    {who:<10} {text:<56} ").append(source, style="dim")
        self._console.print(line, soft_wrap=True)

    def fact(self, claim: str, held: bool, reason: str) -> None:
        """A claim with its mark; with the reason, if it is not so."""
        self.held = self.held and held
        mark = Text("    ✓ ", style="green") if held else Text("    ✗ ", style="bold red")
        self._console.print(mark.append(claim if held else f"{claim}: {reason}"), soft_wrap=True)

    def _wait(self) -> None:
        if self._pause is not None:
            self._pause()
