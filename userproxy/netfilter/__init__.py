"""The kernel's side: one nftables table of our own, and the routes that let the host connect."""


class NetfilterError(Exception):
    """The kernel's side could not be read or changed, and is as before; the message names the remedy."""
