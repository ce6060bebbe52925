"""What a run has found, for people and for programs: a table, report.json, report.md and its plots."""
