"""Where a packet goes, and why: for whoever asks, and for tests.

`walk` follows a packet through the rules as the kernel does; pure. `real` reads what the kernel holds. `sent`
sends a packet of our own and has the kernel tell its way.
"""
