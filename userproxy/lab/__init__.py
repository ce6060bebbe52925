"""The reference deployment in network namespaces, for the demo, the scenarios and the benchmark."""
