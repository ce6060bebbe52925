"""`userproxy top`."""
