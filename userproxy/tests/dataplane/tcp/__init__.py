"""TCP over real sockets: each file tells one part of a connection's life."""
