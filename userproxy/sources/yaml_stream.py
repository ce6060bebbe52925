"""The documents of a YAML stream, within bounds. Pure.

PyYAML's own loaders recurse in C without a bound, and silently take the last of two equal keys. Here its
parser only yields events, and the values are built from them: several times as fast as `CSafeLoader`, never
deeper than `MAX_DEPTH`, and with no more than `MAX_ALIASED` values reached through aliases.

Plain scalars mean what they mean to kubectl (YAML 1.1: `yes` is true), except that timestamps stay strings.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Value = dict[str, "Value"] | list["Value"] | str | int | float | bool | None
"""What a document is made of."""

MAX_DEPTH = 100
MAX_ALIASED = 100_000

_TOO_DEEP = f"is nested more than {MAX_DEPTH} deep"

_WORDS: dict[str, bool | None] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True)
_WORDS |= dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False)
_NUMERIC = frozenset("+-.0123456789")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_BASED_INTEGER = re.compile(r"[-+]?0(?:x[0-9a-fA-F]{1,16}|b[01]{1,64}|o?[0-7]{1,21})")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_STRING_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_CONTAINER_TAGS = frozenset({None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


class YamlError(ValueError):
    """A stream that is not YAML, or exceeds the bounds.

    Attributes:
        document: which document of the stream, from 1.
        error: what is wrong, with the line.
    """

    def __init__(self, document: int, error: str) -> None:
        super().__init__(error)
        self.document = document
        self.error = error


def yaml_documents(text: bytes) -> Iterator[Value]:
    """Yield each document of a YAML stream: dict, list, str, int, float, bool or None.

    Aliases share one value, so that what is yielded must not be changed.

    Raises:
        YamlError: text is not UTF-8 or not YAML, repeats a key, or exceeds the bounds.
    """
    try:
        text.decode()
    except UnicodeDecodeError as failure:
        raise YamlError(1, f"byte {failure.start}: is not UTF-8") from None
    builder = _Builder(text)
    try:
        yield from builder.documents()
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        problem = str(failure.problem or failure.context)
        if "nesting" in problem:  # libyaml's own bound, of 1,000, strikes first where it has to look ahead
            problem = _TOO_DEEP
        raise YamlError(builder.document, f"{place}{problem}") from None
    except yaml.reader.ReaderError as failure:
        raise YamlError(builder.document, f"byte {failure.position}: {failure.reason}") from None
    except yaml.YAMLError as failure:
        raise YamlError(builder.document, " ".join(str(failure).split())) from None


class _Builder:
    """One stream. `document` is the number of the one being built."""

    def __init__(self, text: bytes) -> None:
        self.document = 1
        self._next: Callable[[], Any] = yaml.CSafeLoader(text).get_event
        self._anchors: dict[str, tuple[Value, int]] = {}
        self._nodes = 0
        self._aliased = 0

    def documents(self) -> Iterator[Value]:
        self._next()  # the start of the stream
        while not isinstance(self._next(), yaml.StreamEndEvent):
            self._anchors.clear()
            self._aliased = 0
            yield self._value(self._next(), 0)
            self._next()  # the end of the document
            self.document += 1

    def _value(self, event: yaml.NodeEvent, depth: int) -> Value:
        before = self._nodes
        self._nodes += 1
        value: Value
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        elif depth == MAX_DEPTH:
            raise self._fault(event, _TOO_DEEP)
        elif isinstance(event, yaml.CollectionStartEvent) and event.tag not in _CONTAINER_TAGS:
            raise self._fault(event, f"tag {event.tag} is not allowed")
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(depth + 1)
        else:
            value = self._sequence(depth + 1)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._nodes - before)
        return value

    def _alias(self, event: yaml.AliasEvent) -> Value:
        if event.anchor not in self._anchors:
            raise self._fault(event, f"alias *{event.anchor} has no anchor before it")
        value, nodes = self._anchors[event.anchor]
        self._nodes += nodes
        self._aliased += nodes
        if self._aliased > MAX_ALIASED:
            raise self._fault(event, f"aliases stand for more than {MAX_ALIASED} values")
        return value

    def _sequence(self, depth: int) -> list[Value]:
        items = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._value(event, depth))
        return items

    def _mapping(self, depth: int) -> dict[str, Value]:
        mapping: dict[str, Value] = {}
        merged: list[Value] = []
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._fault(event, "a key must be a string")
            key = sys.intern(event.value)
            value = self._value(self._next(), depth)
            if key == "<<" and event.implicit[0]:
                merged += value if isinstance(value, list) else [value]
            elif key in mapping:
                raise self._fault(event, f"key {key!r} stands there twice")
            else:
                mapping[key] = value
            if event.anchor:
                self._anchors[event.anchor] = (key, 1)
        for other in merged:
            if not isinstance(other, dict):
                raise self._fault(event, "'<<' merges mappings only")
            mapping = other | mapping
        return mapping

    def _scalar(self, event: yaml.ScalarEvent) -> Value:
        text: str = event.value
        if event.tag is None:
            return _plain(text) if event.implicit[0] else text
        if event.tag in _PLAIN_TAGS:
            return _plain(text)
        if event.tag in _STRING_TAGS:
            return text
        raise self._fault(event, f"tag {event.tag} is not allowed")

    def _fault(self, event: yaml.Event, error: str) -> YamlError:
        place = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
        return YamlError(self.document, f"{place}{error}")


def _plain(text: str) -> str | int | float | bool | None:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED_INTEGER.fullmatch(text):
        sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
        return sign * (int(digits, 0) if digits[1] in "xbo" else int(digits, 8))
    return float(text) if _FLOAT.fullmatch(text) else text
