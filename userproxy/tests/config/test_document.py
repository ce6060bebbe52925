"""A file as YAML: what stands where, and what cannot be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from userproxy.config.document import UnreadableError, read

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
data:
  kubeconfig.conf: |-
    kind: Config
  config.conf: |-

      mode: x
      conntrack:
        min: 1
"""


def test_everything_has_its_place(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("mode: x\n# comment\nconntrack: {min: 1,\n  max: 2}\n")
    found = read(file)
    assert found.content == {"mode": "x", "conntrack": {"min": 1, "max": 2}}
    assert found.origin(("mode",)) == f"{file}:1:1"
    assert found.origin(("conntrack", "min")) == f"{file}:3:13"
    assert found.origin(("conntrack", "max")) == f"{file}:4:3"
    assert found.origin(("nowhere",)) == str(file)


def test_of_a_config_map_the_configuration_in_it_counts_with_its_place_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(CONFIG_MAP)
    found = read(file)
    assert found.content == {"mode": "x", "conntrack": {"min": 1}}
    assert found.origin(("mode",)) == f"{file}:8:7"
    assert found.origin(("conntrack", "min")) == f"{file}:10:9"


def test_of_a_config_map_as_json_all_of_it_stands_at_its_key(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    data = {"userproxy.yaml": "mode: x\nworkers: 3\n"}
    file.write_text(json.dumps({"kind": "ConfigMap", "apiVersion": "v1", "data": data}, indent=1))
    found = read(file)
    assert found.content == {"mode": "x", "workers": 3}
    assert found.origin(("workers",)) == f"{file}:5:3"


def test_what_stands_there_twice_is_noted_and_what_is_merged_is_not(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("a: &a {b: 1}\nc: {<<: *a, b: 2}\nd: {e: 1, e: 2}\na: 3\n")
    assert read(file).twice == (("d", "e"), ("a",))


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        ("mode: [", ":1:8", "cannot be read as YAML: "),
        ("a: 1\n\tb: 2", ":2:1", "cannot be read as YAML: "),
        ("a: *b", ":1:4", "cannot be read as YAML: found undefined alias"),
        ("{[a]: b}: c", ":1:", "cannot be read as YAML: "),
        ("a: 2026-99-99", "", "cannot be read as YAML: "),
        ("[" * 5000, "", "cannot be read as YAML: it is nested too deeply"),
        ("a: 1\n---\nb: 2\n", ":2:1", "cannot be read as YAML: "),
        ("- mode", ":1:1", "must be a mapping of settings"),
        ("kind: ConfigMap\n", "", "the ConfigMap has no configuration under config.conf"),
        ("kind: ConfigMap\ndata: {a: x, b: y}\n", ":2:1", "the ConfigMap has no configuration"),
        (CONFIG_MAP.replace("mode: x", "mode: ["), ":10:12", "cannot be read as YAML: "),
        ('kind: ConfigMap\ndata: {config.conf: "mode: ["}\n', ":2:8", "cannot be read as YAML: "),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line_with_its_place(
    tmp_path: Path, content: str, place: str, words: str
) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(content)
    with pytest.raises(UnreadableError) as refused:
        read(file)
    assert str(refused.value).startswith(f"{file}{place}")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
