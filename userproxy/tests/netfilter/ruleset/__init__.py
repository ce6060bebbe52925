"""Tests of the rules: as text, and as what they do to a packet."""
