"""The path steered: each new connection's pod is chosen here, and the kernel carries its bytes. Pure.

| what happens | then |
|---|---|
| a first packet | the balancer picks, by all that it knows; limits refuse |
| the pod picked has failed lately | another one; a dial of ours sees how that one is |
| so have all, or the client is bound to it, or one has just failed it | held for the dial, 0.1 s at most |
| there are no endpoints | refused, or held, as the author wants it |
| TCP: the packet comes again, and nobody has answered | another pod; a dial of ours sees how that one is |
| the pod refuses | likewise; the client hears nothing, and the next packet goes to another one |
| all pods have refused | the client is too; if one was merely silent, all are tried anew: packets get lost |
| another connection of the same client's port | the one before is over, unless the kernel still carries it |
| UDP: another first packet, before conntrack knows the flow | as the first |

Each connection has one backend, and is counted once, from the choice until conntrack says that it is over.
"""
