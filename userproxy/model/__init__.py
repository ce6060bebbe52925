"""The vocabulary: what a Service port is, what is wanted, and which actions lead there. Pure."""
