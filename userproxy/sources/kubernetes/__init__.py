"""The Kubernetes API as the source of Services.

```
access.py      one connection's worth of kubeconfig, credentials, TLS and HTTP (kubernetes_asyncio)
wire.py        the bytes of lists and watches (pure)
backoff.py     how long to wait after a failure (pure)
reflector.py   list and watch of one resource, for ever
source.py      three reflectors, one index, one Snapshot after another
events.py      Events on the Services whose author must know something
```

`access` imports kubernetes_asyncio, which takes up to a second and 73 MB: import `source` only where the API
is the source.
"""
