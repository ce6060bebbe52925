"""The bytes of one manifest file become decoded objects, all of them or none. Pure.

A file holds YAML documents or one JSON document. Each is a v1 Service, a discovery.k8s.io/v1 EndpointSlice,
or a List of such, as `kubectl get services,endpointslices -A -o yaml` prints it.

The other kinds that Kubernetes itself has are skipped, for they often share a file with a Service. Any other
kind is an error: it is more likely a spelling mistake than anything else. An Endpoints object is skipped with
a problem, because its author expects it to have an effect.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from userproxy.model.snapshot import Problem
from userproxy.sources import api
from userproxy.sources.api import DecodeError, typed
from userproxy.sources.decode import (
    EVERYTHING,
    DecodedObject,
    Kind,
    ObjectKey,
    Scope,
    decode_slice,
)
from userproxy.sources.services import decode_service
from userproxy.sources.yaml_stream import YamlError, yaml_documents

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 64 * 1024 * 1024

_T = TypeVar("_T")

_API_VERSIONS: dict[str, str] = {Kind.SERVICE: "v1", Kind.ENDPOINT_SLICE: "discovery.k8s.io/v1"}
_LISTS = frozenset({"List", "ServiceList", "EndpointSliceList"})
_READ = "Service, EndpointSlice and List are read"
# fmt: off
_SKIPPED = frozenset(
    {
        "Binding", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "ControllerRevision", "CronJob",
        "CSIDriver", "CSINode", "CustomResourceDefinition", "DaemonSet", "Deployment", "Event",
        "HorizontalPodAutoscaler", "Ingress", "IngressClass", "IPAddress", "Job", "Lease", "LimitRange",
        "MutatingWebhookConfiguration", "Namespace", "NetworkPolicy", "Node", "PersistentVolume",
        "PersistentVolumeClaim", "Pod", "PodDisruptionBudget", "PodTemplate", "PriorityClass", "ReplicaSet",
        "ReplicationController", "ResourceQuota", "Role", "RoleBinding", "RuntimeClass", "Secret",
        "ServiceAccount", "ServiceCIDR", "StatefulSet", "StorageClass", "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration", "VolumeAttachment"
    }
)
# fmt: on
_MALFORMED = re.compile(r"JSON is malformed: (?P<error>.*) \(byte (?P<byte>\d+)\)", re.DOTALL)


class ManifestError(ValueError):
    """A file that is not taken, in one line.

    Attributes:
        document: which document of the file, from 1; 0 for the file as a whole.
        subject: which object, `Service prod/web` or `items[3]`; empty for the document itself.
        field: where in the object, `spec.ports[0].port`; may be empty.
        error: what is wrong, and what would be right.
    """

    def __init__(self, error: str, *, document: int = 0, subject: str = "", field: str = "") -> None:
        place = (f"document {document}" if document else "", subject, field)
        super().__init__(": ".join([*filter(None, place), error]))
        self.document = document
        self.subject = subject
        self.field = field
        self.error = error


class Manifest(NamedTuple):
    """What a file holds: its objects in their order, and what its author should know of it."""

    objects: tuple[DecodedObject, ...] = ()
    problems: tuple[Problem, ...] = ()


def decode_manifest(data: bytes, *, is_json: bool, scope: Scope = EVERYTHING) -> Manifest:
    """Decode a whole file.

    Args:
        data: the bytes of the file.
        is_json: JSON, which is read far faster; a YAML file may hold JSON too.
        scope: what of it is served.

    Raises:
        ManifestError: something in the file cannot be served as it stands, or the file holds nothing at all.
    """
    if len(data) > MAX_BYTES:
        raise ManifestError(f"is larger than {MAX_BYTES >> 20} MiB: split it into several files")
    reading = _Reading(_JSON if is_json else _YAML, scope)
    try:
        if not is_json:
            for number, value in enumerate(yaml_documents(data), 1):
                if value is not None:
                    reading.document(number, value)
        elif data.strip():
            reading.document(1, msgspec.Raw(data))
    except YamlError as fault:
        raise ManifestError(fault.error, document=fault.document) from None
    except UnicodeDecodeError as fault:
        raise ManifestError(f"is not UTF-8: {fault.reason}", document=1) from None
    except msgspec.DecodeError as fault:
        raise ManifestError(_json_fault(str(fault), data), document=1) from None
    if not reading.documents:
        raise ManifestError("holds no object: delete the file if that is what you want")
    return Manifest(tuple(reading.objects.values()), tuple(reading.problems))


class _Name(msgspec.Struct):
    name: Any = None
    namespace: Any = None


class _Header(msgspec.Struct, rename={"api_version": "apiVersion"}):
    """What tells the kind of an object; its `items` are those of a List, not looked at yet."""

    kind: str = ""
    api_version: str = ""
    metadata: _Name | None = None


class _YamlHeader(_Header):
    items: list[Any] | None = None


class _JsonHeader(_Header):
    items: list[msgspec.Raw] | None = None


class _Syntax(NamedTuple):
    read: Callable[..., Any]
    header: type[_YamlHeader | _JsonHeader]


_YAML = _Syntax(msgspec.convert, _YamlHeader)
_JSON = _Syntax(msgspec.json.decode, _JsonHeader)


class _Reading:
    """One pass through a file."""

    def __init__(self, syntax: _Syntax, scope: Scope) -> None:
        self.documents = 0
        self.objects: dict[ObjectKey, DecodedObject] = {}
        self.problems: list[Problem] = []
        self._syntax = syntax
        self._scope = scope
        self._subject = ""

    def document(self, number: int, value: object) -> None:
        """Take one document: an object or a List."""
        self.documents += 1
        self._subject = ""
        try:
            header = self._header(value)
            if header.kind not in _LISTS:
                self._take(header, value)
                return
            for index, item in enumerate(header.items or ()):
                self._subject = f"items[{index}]"
                # The items of a ServiceList do not repeat their kind.
                kind, api_version = header.kind.removesuffix("List"), header.api_version
                self._take(self._header(item, kind, api_version), item)
        except DecodeError as fault:
            raise ManifestError(
                fault.error, document=number, subject=self._subject, field=fault.field
            ) from None

    def _header(self, value: object, kind: str = "", api_version: str = "") -> _YamlHeader | _JsonHeader:
        header: _YamlHeader | _JsonHeader = self._read(value, self._syntax.header)
        header.kind = header.kind or kind
        header.api_version = header.api_version or api_version
        return header

    def _read(self, value: object, shape: type[_T]) -> _T:
        result: _T = typed(lambda: self._syntax.read(value, type=shape))
        return result

    def _take(self, header: _Header, value: object) -> None:
        if not header.kind:
            raise DecodeError("kind", f"is missing: {_READ}")
        meta = header.metadata or _Name()
        name = f"{meta.namespace or 'default'}/{meta.name}"
        if isinstance(meta.name, str):
            self._subject = f"{header.kind} {name}"
        elif not self._subject:
            self._subject = header.kind
        if header.kind in _API_VERSIONS:
            decoded = self._decode(header, value)
            if decoded.key in self.objects:
                raise DecodeError("", "stands twice in this file")
            self.objects[decoded.key] = decoded
        elif header.kind == "Endpoints":
            message = (
                f"{self._subject} is skipped: write EndpointSlices instead, from which endpoints are read"
            )
            self.problems.append(Problem(name, "EndpointsNotRead", message))
        elif header.kind not in _SKIPPED:
            raise DecodeError("kind", f"{header.kind!r} is not known: {_READ}")

    def _decode(self, header: _Header, value: object) -> DecodedObject:
        if header.api_version != _API_VERSIONS[header.kind]:
            said = repr(header.api_version) if header.api_version else "is missing"
            raise DecodeError("apiVersion", f"{said}: a {header.kind} is {_API_VERSIONS[header.kind]}")
        if header.kind == Kind.SERVICE:
            return decode_service(self._read(value, api.Service), self._scope)
        return decode_slice(self._read(value, api.EndpointSlice), self._scope)


def _json_fault(error: str, data: bytes) -> str:
    found = _MALFORMED.match(error)
    if not found:
        return f"is not JSON: {error}"
    line = data.count(b"\n", 0, int(found["byte"])) + 1
    return f"line {line}: is not JSON: {found['error']}"
