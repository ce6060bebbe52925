"""What the daemon answers over HTTP: whether it is healthy, to load balancers and kubelets, and its metrics.

The paths, the answers and the names of the metrics are kube-proxy's wherever both have the same to tell.
"""
