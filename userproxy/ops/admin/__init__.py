"""The admin socket: HTTP/1.1 with JSON over a unix socket, for the command line and any language."""
