"""Tests of the lab that need neither root nor namespaces."""
