"""What the tests of the data side stand on: real sockets, and no real time."""
