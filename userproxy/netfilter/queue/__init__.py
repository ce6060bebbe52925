"""A netfilter queue: packets that wait in the kernel until a process says what becomes of them.

The kernel falls open: without a process, or with more packets waiting than the queue may have, they go on as
if nobody had been asked. Sources: linux/netfilter/nfnetlink_queue.h, net/netfilter/nfnetlink_queue.c.
"""
