"""The kernel's side: one nftables table of our own, and the routes that let the host connect."""
