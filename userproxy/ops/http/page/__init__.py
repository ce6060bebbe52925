"""The page at `/` of the metrics address: what is served, by whom, to whom, and what troubles the daemon."""
