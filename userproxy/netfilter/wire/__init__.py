"""What goes over netlink: our ruleset as messages, the kernel's answers as values, and the socket between."""
