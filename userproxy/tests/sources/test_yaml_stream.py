"""YAML as kubectl reads it, within bounds."""

from __future__ import annotations

import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from userproxy.sources.yaml_stream import MAX_ALIASED, MAX_DEPTH, Value, YamlError, yaml_documents

# PyYAML leaves strings such as 0E0 unquoted, which are numbers to kubectl and to us.
TEXT = st.text(string.printable, max_size=20).filter(lambda text: text[:1] not in {*"+-.0123456789"})
VALUES: st.SearchStrategy[Value] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def bomb(levels: int, width: int = 10) -> bytes:
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


@given(VALUES)
def test_what_is_written_is_read_back(value: Value) -> None:
    written: str = yaml.safe_dump_all([value, value])
    assert list(yaml_documents(written.encode())) == [value, value]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8080", 8080), ("-1", -1), ("0x10", 16), ("0o17", 15), ("017", 15), ("-017", -15), ("0b11", 3),
        ("1.5", 1.5), ("1e3", 1000.0), ("10.0.1.2", "10.0.1.2"), ("'8080'", "8080"), ("089", 89.0),
        ("yes", True), ("Off", False), ("~", None), ("", None), ("''", ""), ("y", "y"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("!!str 80", "80"), ("!!int '80'", 80), ("-", [None]),
        ("9" * 5000, float("9" * 5000)),
    ],
)  # fmt: skip
def test_plain_scalars_mean_what_they_mean_to_kubectl(text: str, value: Value) -> None:
    assert list(yaml_documents(text.encode())) == ([value] if text else [])


def test_aliases_and_merge_keys_are_followed() -> None:
    text = b"base: &b {x: 1, y: 2}\nmerged: {<<: *b, y: 3}\nboth: {<<: [*b, {z: 4}]}\nsame: *b\n"
    assert next(yaml_documents(text)) == {
        "base": {"x": 1, "y": 2},
        "merged": {"x": 1, "y": 3},
        "both": {"x": 1, "y": 2, "z": 4},
        "same": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    ("text", "document", "error"),
    [
        (b"a: 1\n---\na: 1\na: 2\n", 2, "line 4: key 'a' stands there twice"),
        (b"a: [1\n", 1, "line 2: did not find expected ',' or ']'"),
        (b"\ta: 1\n", 1, "line 1: found character that cannot start any token"),
        (b"a: b\0\n", 1, "byte 4: control characters are not allowed"),
        (b"a: \xff\n", 1, "byte 3: is not UTF-8"),
        ("a: 1".encode("utf-16"), 1, "byte 0: is not UTF-8"),
        (b"a: *b\n", 1, "line 1: alias *b has no anchor before it"),
        (b"a: &a [*a]\n", 1, "line 1: alias *a has no anchor before it"),
        (b"a: !!python/object/apply:os.system [id]\n", 1, "python/object/apply:os.system is not allowed"),
        (b"a: !!binary aGk=\n", 1, "tag:yaml.org,2002:binary is not allowed"),
        (b"{[a]: b}\n", 1, "line 1: a key must be a string"),
        (b"a: {<<: 1}\n", 1, "'<<' merges mappings only"),
        (b"[" * 100_000, 1, f"line 1: is nested more than {MAX_DEPTH} deep"),
        (b"{a: " * 100_000, 1, f"line 1: is nested more than {MAX_DEPTH} deep"),
        (b"a:\n" + b"- " * 500, 1, f"line 2: is nested more than {MAX_DEPTH} deep"),
        (bomb(levels=9), 1, f"aliases stand for more than {MAX_ALIASED} values"),
        (bomb(levels=3, width=400), 1, f"aliases stand for more than {MAX_ALIASED} values"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: bytes, document: int, error: str) -> None:
    with pytest.raises(YamlError) as failure:
        list(yaml_documents(text))
    assert failure.value.document == document
    assert error in failure.value.error
    assert "\n" not in failure.value.error


def test_nesting_and_aliases_within_the_bounds_are_fine() -> None:
    assert list(yaml_documents(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH))
    assert list(yaml_documents(bomb(levels=4)))


@given(st.binary(max_size=200) | st.text("{}[]&*!|>-:?,#'\"%@` \n\tab<=~", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        list(yaml_documents(text))
    except YamlError as failure:
        assert failure.error  # noqa: PT017 - either outcome is right
