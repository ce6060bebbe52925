"""The event loop's own epoll, and the sockets that are watched on it."""
