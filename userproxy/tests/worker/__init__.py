"""Tests of userproxy.worker."""
