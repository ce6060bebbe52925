"""The ways from a client to a Service's pods, one kind a file; `registry` lists them."""
