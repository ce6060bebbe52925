"""Tests of the sources: what is read, what is refused, and that the last good state stays."""
