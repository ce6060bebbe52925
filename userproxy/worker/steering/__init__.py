"""Steering processes: they answer a netfilter queue, and relay nothing.

Each is found, told and replaced as workers are. While there is none, the kernel asks nobody, and the rules
choose: no client is refused, and none waits.
"""
