"""Tests of what is chosen for connections that the kernel carries."""
