"""Leaving no trace: what `userproxy cleanup` does, with or without a daemon that ever ran."""

from __future__ import annotations

from userproxy.netfilter.nftables import Nftables
from userproxy.netfilter.routes import Routes


def cleanup() -> None:
    """Remove our table, our routes and our rule from this network namespace, if they are there.

    Afterwards ruleset and routes are what they were before the first start. Nothing else is touched, a second
    call finds nothing to do.

    Raises:
        NetfilterError: something is still there; the message names the remedy.
    """
    with Nftables() as nftables, Routes() as routes:
        nftables.remove()
        routes.remove()
