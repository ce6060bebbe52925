"""Tests of the command line, against a real admin socket with a made-up daemon behind it."""
