"""An API server with etcd and nothing else: how it is started, and who may speak to it."""
