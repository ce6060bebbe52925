"""The benchmark: what it makes of the programs' output, of its samples, and of a record."""
