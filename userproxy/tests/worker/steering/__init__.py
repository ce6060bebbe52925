"""Tests of userproxy.worker.steering."""
