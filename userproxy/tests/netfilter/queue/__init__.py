"""Tests of netfilter queues."""
