"""The Kubernetes API as the source of Services.

```
credentials.py the kubeconfig or ServiceAccount, as a client of kubernetes_asyncio
access.py      one connection's worth of requests: TLS, HTTP, bytes as they come
failures.py    what can go wrong with a request, in words
wire.py        the bytes of lists and watches (pure)
backoff.py     how long to wait after a failure (pure)
reflector.py   list and watch of one resource, for ever
stores.py      what reflectors tell, object by object, into the index
source.py      three reflectors, one index, one Snapshot after another
events.py      Events on the Services whose author must know something
```

`credentials` imports kubernetes_asyncio, which takes up to a second and 73 MB: import `source` only where the
API is the source.
"""
