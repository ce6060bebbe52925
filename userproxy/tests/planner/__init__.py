"""From Snapshot to Plan: who takes traffic, on which port, in which order, and how often."""
