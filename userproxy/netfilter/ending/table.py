"""The table of `rules` in the kernel."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, NamedTuple, Self

from userproxy.netfilter import NetfilterError
from userproxy.netfilter.ending.rules import ENDING, ENDING_TABLE, STRUCK, elements_of, ending_ruleset
from userproxy.netfilter.wire import encode, packing, read_back
from userproxy.netfilter.wire.netlink import RefusedError, Socket

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from userproxy.netfilter.conntrack.flows import Flow

NETLINK_NETFILTER = 12
_OWNER = 0x02  # NFT_TABLE_F_OWNER


class Ends(NamedTuple):
    """What has become of the ends of connections, each as `key_of` has it.

    Attributes:
        ending: those of whom it is not known that they are gone.
        struck: those that have been sent a reset.
    """

    ending: frozenset[bytes]
    struck: frozenset[bytes]


class EndingTable:
    """The rules that end connections; they are there until `close`, or until this process ends.

    One that an earlier process has left, on a kernel whose tables have no owners, is replaced.

    Raises:
        RefusedError: the kernel refuses the rules; likewise the methods.
        OSError: the kernel did not answer; likewise.
    """

    def __init__(self) -> None:
        self._socket = Socket(NETLINK_NETFILTER)
        try:
            self._put_up()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put_up(self) -> None:
        fresh = [encode.table(0, ENDING_TABLE), encode.delete_table(ENDING_TABLE)]
        spec = ending_ruleset()
        try:
            self._socket.batch([*fresh, *encode.creation(spec, _OWNER)])
        except RefusedError:  # by a kernel before 5.12, or it refuses the rest too
            self._socket.batch([*fresh, *encode.creation(spec)])

    def close(self) -> None:
        """Take the rules away."""
        with contextlib.suppress(RefusedError, OSError):  # it is gone
            self._socket.batch([encode.delete_table(ENDING_TABLE)])
        self._socket.close()

    def end(self, flows: Collection[Flow]) -> None:
        """Answer what the ends of these connections send with resets, from now on."""
        self._socket.batch([*packing.add_elements(elements_of(flows), table=ENDING_TABLE)])

    def look(self) -> Ends:
        """What has become of them all."""
        return Ends(*(frozenset(self._keys(spec.name)) for spec in (ENDING, STRUCK)))

    def _keys(self, name: str) -> list[bytes]:
        return [each.key for each in read_back.read_elements(self._socket, [name], ENDING_TABLE)]


def remove_left() -> bool:
    """Remove the table that a process has left, on a kernel whose tables have no owners.

    Returns:
        Whether there was one.

    Raises:
        NetfilterError: it is still there.
    """
    try:
        socket = Socket(NETLINK_NETFILTER)
        try:
            socket.batch([encode.delete_table(ENDING_TABLE)])
        finally:
            socket.close()
    except RefusedError as error:
        if error.refusal.errno == errno.ENOENT:
            return False
        raise NetfilterError(f"cannot remove the nftables table inet {ENDING_TABLE}: {error}") from error
    except OSError as error:
        raise NetfilterError(f"cannot remove the nftables table inet {ENDING_TABLE}: {error}") from error
    return True
