"""The reference deployment in network namespaces: two hosts with their pods and a gateway on one machine.

`Lab` (`userproxy.lab.deployment`) is what the demo, `integration/` and `bench/` build on.
"""
