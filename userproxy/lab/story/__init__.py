"""`userproxy lab run`: what happens to one request, told to a person while it happens.

Nothing here is said from memory. Each line with a mark is a fact that was looked up in this run: in the
daemon's own table, in the kernel's, or at the far end; ✗ and the reason where it is not so.
"""
