"""What is done to a path, and what comes out: one kind of workload a file."""
