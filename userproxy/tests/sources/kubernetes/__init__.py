"""Tests of the Kubernetes API as a source: what is asked, what is told, and what goes wrong."""
