"""Tests of what an operator touches."""
