"""Leaving no trace: what `userproxy cleanup` does, with or without a daemon that ever ran."""

from __future__ import annotations

from userproxy.netfilter.ending.rules import ENDING_TABLE
from userproxy.netfilter.ending.table import remove_left
from userproxy.netfilter.nftables import Nftables
from userproxy.netfilter.routes import ROUTE_TABLE, RULE_PRIORITY, Routes
from userproxy.netfilter.ruleset.language import TABLE


def cleanup() -> tuple[str, ...]:
    """Remove our table, our routes and our rules from this network namespace, if they are there.

    Afterwards ruleset and routes are what they were before the first start. Nothing else is touched, a second
    call finds nothing to do.

    Returns:
        A line for each kind of thing that was there.

    Raises:
        NetfilterError: something is still there; the message names the remedy.
    """
    left = remove_left()
    with Nftables() as nftables, Routes() as made:
        table = nftables.remove()
        routes, rules = made.remove()
    found = {
        f"nftables table inet {TABLE}": table,
        f"nftables table inet {ENDING_TABLE}": left,
        f"routing rule{'s' if rules > 1 else ''} {RULE_PRIORITY} to table {ROUTE_TABLE}": rules,
        f"{routes} route{'s' if routes > 1 else ''} to Service IPs in table {ROUTE_TABLE}": routes,
    }
    return tuple(line for line, there in found.items() if there)
