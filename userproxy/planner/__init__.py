"""From a Snapshot to ordered actions. Pure, but for the reconcile loop in `sync`."""
