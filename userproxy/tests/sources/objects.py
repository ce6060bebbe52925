"""API objects for the tests, as plain dicts: those of the reference deployment unless told otherwise."""

from __future__ import annotations

from typing import Any

import msgspec

from userproxy.lab import objects
from userproxy.sources import api
from userproxy.sources.decode import EVERYTHING, Scope, ServiceObject, SliceObject, decode_slice
from userproxy.sources.services import decode_service

SERVICE_IP = "10.3.241.152"


def service(name: str = "server-service", **spec: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """A Service manifest; keywords replace fields of its spec, `metadata` adds to the metadata."""
    made = objects.service(name, metadata=spec.pop("metadata", None))
    defaults = {"clusterIP": SERVICE_IP, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return made | {"spec": defaults | spec}


def endpoint_slice(
    name: str = "server-service-1",
    *endpoints: dict[str, Any],
    service_name: str = "server-service",
    labels: Any = None,  # noqa: ANN401 - any JSON
    **fields: Any,  # noqa: ANN401 - any JSON
) -> dict[str, Any]:
    """An EndpointSlice manifest; keywords replace its fields."""
    given = list(endpoints) or [{"addresses": ["10.0.1.2"]}, {"addresses": ["10.0.2.2"]}]
    made = objects.endpoint_slice(name, service_name, metadata={"labels": labels or {}})
    return made | {"ports": [{"name": "http", "port": 8080}], "endpoints": given} | fields


def decoded_service(manifest: dict[str, Any], scope: Scope = EVERYTHING) -> ServiceObject:
    """Decode a manifest as the sources do."""
    return decode_service(api.typed(lambda: msgspec.convert(manifest, api.Service)), scope)


def decoded_slice(manifest: dict[str, Any], scope: Scope = EVERYTHING) -> SliceObject:
    """Decode a manifest as the sources do."""
    return decode_slice(api.typed(lambda: msgspec.convert(manifest, api.EndpointSlice)), scope)
