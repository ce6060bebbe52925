"""What a browser on the operator's desk may be tricked into: a page of somebody else that asks us.

We set no cookies and allow no other origin (CORS), so such a page can read an answer only if its own name is
made to lead to our address (DNS rebinding). A request under a name that is not ours is therefore refused.
Names without a dot are taken for ours: nobody else can have them in the public DNS.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from aiohttp import web


def foreign(request: web.Request, names: Container[str] = ()) -> str:
    """Why a request is not to be answered: it comes from a page of somebody else. Empty if it may be.

    Args:
        request: that came in.
        names: under which this machine is known, beside its addresses and names without a dot.
    """
    if request.headers.get("Origin"):
        return "a page of another origin asks"
    is_link = request.headers.get("Sec-Fetch-Dest") == "document"  # which only who follows it sees
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not is_link:
        return "a page of another origin asks"
    host = request.headers.get("Host", "")
    return "" if _is_ours(host, names) else f"{host[:100]!r} is no name of this machine"


def _is_ours(host: str, names: Container[str]) -> bool:
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    name = name.rstrip(".").lower()
    if "." not in name and ":" not in name:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True
