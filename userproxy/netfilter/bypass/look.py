"""Looks, again and again, for whoever takes the connections to our Services before we see them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from userproxy.netfilter import NetfilterError
from userproxy.netfilter.bypass.claims import Order, Taker, taken
from userproxy.netfilter.bypass.legacy import HOOKS, LAYOUT4, LAYOUT6, TABLE, Legacy
from userproxy.netfilter.bypass.nft import NftRules, nat_chains
from userproxy.netfilter.wire import read_back
from userproxy.netfilter.wire.netlink import Socket

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from userproxy.model.state import Frontend
    from userproxy.netfilter.bypass.claims import NatChain

log = structlog.get_logger(__name__)

NETLINK_NETFILTER = 12


class BypassWatch:
    """Reads the nat rules of others, in the network namespace of the thread that makes the object.

    Every call blocks, and may come from any thread, one at a time. Lives as long as the daemon.

    Attributes:
        rest: so many times as long as a look has taken, the next one waits.
    """

    def __init__(self) -> None:
        """Open the sockets; nothing is read.

        Raises:
            NetfilterError: the kernel has no netfilter.
        """
        try:
            self._socket = Socket(NETLINK_NETFILTER)
            self._legacy = {
                f"{TABLE} (iptables-legacy)": Legacy(LAYOUT4),
                f"{TABLE} (ip6tables-legacy)": Legacy(LAYOUT6),
            }
        except OSError as error:
            raise NetfilterError(f"cannot speak to netfilter: {error}") from error
        self.rest = 20.0
        self._orders = {name: Order() for name in self._legacy}
        self._seen: tuple[int, dict[str, bytes]] = (-1, {})  # the state of all rules, when they were read
        self._found: dict[Frontend, Taker] = {}
        self._others: tuple[str, ...] = ()
        self._not_before = 0.0
        self._blind = False

    def close(self) -> None:
        """Close the sockets."""
        self._socket.close()
        for legacy in self._legacy.values():
            legacy.close()

    def look(self, frontends: Collection[Frontend]) -> Mapping[Frontend, Taker]:
        """Those of our frontends that somebody else takes, with who it is, by what was seen last.

        Costs a question while nobody has changed anything; otherwise the rules before ours are read, with
        a rest after it.
        """
        began = time.monotonic()
        if began < self._not_before:
            return self._found
        try:
            legacy = {name: each.info() for name, each in self._legacy.items()}
            now = (read_back.generation(self._socket), legacy)
            if now != self._seen:
                self._found = self._taken(frontends, legacy)
                self._seen = now
            self._blind = False
        except Exception as error:  # noqa: BLE001 - whatever their rules are, ours go on
            if not self._blind:
                log.warning("whether others take our connections is not known", error=str(error))
            self._blind = True
        finally:
            ended = time.monotonic()
            self._not_before = ended + (ended - began) * self.rest
        return self._found

    def _taken(self, frontends: Collection[Frontend], legacy: Mapping[str, bytes]) -> dict[Frontend, Taker]:
        chains = nat_chains(self._socket)
        before: list[NatChain] = []
        legacy_too: list[str] = []
        for name, order in self._orders.items():
            before, is_before = order.earlier(chains, legacy=bool(legacy[name]))
            legacy_too += [name] if is_before else []
        found: dict[Frontend, Taker] = {}
        tables: dict[tuple[str, str], list[str]] = {}
        for base in before:
            tables.setdefault((base.family, base.table), []).append(base.name)
        for table, bases in tables.items():
            for frontend, chain in taken(frontends, bases, NftRules(self._socket, *table)).items():
                found.setdefault(frontend, Taker(" ".join(table), chain))
        for name in legacy_too:
            for frontend, chain in taken(frontends, HOOKS, self._legacy[name].read(legacy[name])).items():
                found.setdefault(frontend, Taker(name, chain))
        others = tuple(sorted({f"{base.family} {base.table} {base.name}" for base in before}))
        if others != self._others:
            log.info("nat chains of others that are asked before ours", chains=others)
            self._others = others
        return found
