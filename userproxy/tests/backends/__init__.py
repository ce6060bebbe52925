"""Tests of who may be picked."""
