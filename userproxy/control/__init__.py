"""The control process: from the latest Snapshot to what the workers and the kernel do."""
