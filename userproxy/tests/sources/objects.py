"""API objects for the tests, as plain dicts: those of the reference deployment unless told otherwise."""

from __future__ import annotations

from typing import Any

import msgspec

from userproxy.sources import api
from userproxy.sources.decode import ServiceObject, SliceObject, decode_service, decode_slice

SERVICE_IP = "10.3.241.152"


def service(name: str = "server-service", **spec: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """A Service manifest; keywords replace fields of its spec, `metadata` adds to the metadata."""
    metadata = {"namespace": "default", "name": name} | spec.pop("metadata", {})
    defaults = {"clusterIP": SERVICE_IP, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": defaults | spec}


def endpoint_slice(
    name: str = "server-service-1",
    *endpoints: dict[str, Any],
    service_name: str = "server-service",
    **fields: Any,  # noqa: ANN401 - any JSON
) -> dict[str, Any]:
    """An EndpointSlice manifest; keywords replace its fields."""
    labels = {api.SERVICE_NAME_LABEL: service_name} | fields.pop("labels", {})
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": name, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": list(endpoints) or [{"addresses": ["10.0.1.2"]}, {"addresses": ["10.0.2.2"]}],
    } | fields


def decoded_service(manifest: dict[str, Any], service_proxy_name: str | None = None) -> ServiceObject:
    """Decode a manifest as the sources do."""
    return decode_service(api.typed(lambda: msgspec.convert(manifest, api.Service)), service_proxy_name)


def decoded_slice(manifest: dict[str, Any], service_proxy_name: str | None = None) -> SliceObject:
    """Decode a manifest as the sources do."""
    return decode_slice(api.typed(lambda: msgspec.convert(manifest, api.EndpointSlice)), service_proxy_name)
