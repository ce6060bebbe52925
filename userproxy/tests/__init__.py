"""Unit tests: no root, no network, no sleeps. They mirror the layers."""
