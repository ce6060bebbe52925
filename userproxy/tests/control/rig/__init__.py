"""What the suites of the control side stand on: its neighbours in memory, and a daemon between them."""
