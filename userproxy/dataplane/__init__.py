"""Everything that touches a client's bytes: listeners, dialling, relaying, the table of connections."""
