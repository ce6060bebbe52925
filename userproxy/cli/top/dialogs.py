"""What lies over the table for a moment: a question before something is done, and the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

KEYS = """\
r b a i   sort by rate, bytes, age, idle; once more: the other way
g         group by Service, backend, client, or not at all
/         filter by words; Enter keeps it, Esc removes it
Enter     what is in a group
arrows    choose a line; the cursor stays with it
k         kill: reset the connection, or all in the group
d, u      drain a backend: no new connections; undo that
p         pause
q         quit

Rates are of the bytes since the last look. On the path redirect to
pod the kernel carries these, and counts them only while
net.netfilter.nf_conntrack_acct is 1; nobody but its two ends can
end such a connection."""


class Question(ModalScreen[bool]):
    """Asks whether to do something; anything but `y` is a no.

    Args:
        text: what would be done, in full.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q,enter", "answer(False)", "no"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The question, and how to answer it."""
        with Vertical():
            yield Static(self._text, id="question", markup=False)
            yield Static("y: yes    n: no", classes="quiet")

    def action_answer(self, answer: bool) -> None:
        """Take the answer."""
        self.dismiss(answer)


class Help(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "leave", "back")]

    def compose(self) -> ComposeResult:
        """What each does."""
        with Vertical():
            yield Static(KEYS, markup=False)

    def action_leave(self) -> None:
        """Back to the table."""
        self.dismiss(None)
