"""Ending connections that the kernel carries: README.md in the folder above says how."""
