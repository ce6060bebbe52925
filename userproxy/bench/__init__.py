"""The benchmark: the same workloads over every path, interleaved, as ratios."""
