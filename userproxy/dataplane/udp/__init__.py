"""Datagrams: a session for each client, with a socket of its own to its backend."""
