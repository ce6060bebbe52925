"""From a Snapshot to ordered actions. Pure."""
