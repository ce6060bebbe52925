"""A configuration file as YAML, with the place of everything that stands in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from userproxy.config.values import Mistake

if TYPE_CHECKING:
    from pathlib import Path

_DEEPEST = 4
"""Mappings within mappings, of which the places are noted."""

Keys = tuple[str, ...]


class UnreadableError(Exception):
    """The file holds no settings. The mistake says why."""

    def __init__(self, origin: str, reason: str) -> None:
        super().__init__(f"{origin}: {reason}")
        self.mistake = Mistake(origin, "", reason)


class Document(msgspec.Struct, frozen=True):
    """What stands in a file.

    Attributes:
        file: its name.
        content: of the whole, with texts as keys.
        places: by the keys on the way, the line and column of the last of them, from 1 on.
        twice: the keys of what stands there twice, of which YAML would take the last.
    """

    file: str
    content: dict[str, Any]
    places: dict[Keys, tuple[int, int]] = {}
    twice: tuple[Keys, ...] = ()

    def origin(self, keys: Keys) -> str:
        """Where something stands: `userproxy.yaml:3:1`."""
        place = self.places.get(keys)
        return f"{self.file}:{place[0]}:{place[1]}" if place else self.file


def read(file: Path) -> Document:
    """Read a file; of a ConfigMap, the configuration in it.

    Raises:
        UnreadableError: it holds no settings.
    """
    try:
        text = file.read_text()
    except FileNotFoundError:
        raise UnreadableError(str(file), "does not exist: create it, or leave --config out") from None
    except OSError as error:
        raise UnreadableError(str(file), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UnreadableError(str(file), f"cannot be read as YAML: {error}") from None
    document = _parse(str(file), text, 0, 0)
    return _of_config_map(document, text) if document.content.get("kind") == "ConfigMap" else document


def _of_config_map(outer: Document, text: str) -> Document:
    data = outer.content.get("data")
    found = data if isinstance(data, dict) else {}
    texts = {key: value for key, value in found.items() if isinstance(value, str)}
    key = "config.conf" if "config.conf" in texts or len(texts) != 1 else next(iter(texts))
    if key not in texts:
        raise UnreadableError(outer.origin(("data",)), "the ConfigMap has no configuration under config.conf")
    line, column = outer.places[("data", key)]
    inner = texts[key]
    head = text.splitlines()[line - 1].rstrip()
    if not head.endswith(("|", "|-", "|+")):  # not line by line: all of it stands at its key
        try:
            whole = _parse(outer.file, inner, 0, 0)
        except UnreadableError as error:
            raise UnreadableError(outer.origin(("data", key)), error.mistake.reason) from None
        return msgspec.structs.replace(whole, places=dict.fromkeys(whole.places, (line, column)))
    first = next((each for each in text.splitlines()[line:] if each.strip()), "")
    indent = len(first) - len(first.lstrip())
    return _parse(outer.file, inner, line, indent)


def _parse(file: str, text: str, line: int, column: int) -> Document:
    """Read YAML that begins after so many lines of the file, each after so many columns."""
    places: dict[Keys, tuple[int, int]] = {}
    twice: list[Keys] = []
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _note(node, (), places, twice)  # before YAML's merge keys are taken apart
        content = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        origin = f"{file}:{mark.line + line + 1}:{mark.column + column + 1}" if mark else file
        raise UnreadableError(origin, f"cannot be read as YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is not
        raise UnreadableError(file, f"cannot be read as YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UnreadableError(file, "cannot be read as YAML: it is nested too deeply") from None
    if content is None:
        return Document(file, {})
    if not isinstance(content, dict):
        raise UnreadableError(
            f"{file}:{line + 1}:{column + 1}",
            "must be a mapping of settings, such as `mode: redirect-to-host`",
        )
    shifted = {keys: (row + line + 1, start + column + 1) for keys, (row, start) in places.items()}
    return Document(file, {str(key): value for key, value in content.items()}, shifted, tuple(twice))


def _note(node: Any, above: Keys, places: dict[Keys, tuple[int, int]], twice: list[Keys]) -> None:  # noqa: ANN401 - of yaml, without types
    """Note where each key of a mapping stands, and those of the mappings under it."""
    if not isinstance(node, yaml.MappingNode) or len(above) == _DEEPEST:
        return
    for key, value in node.value:
        keys = (*above, str(key.value))
        if keys in places:
            twice.append(keys)
        places[keys] = key.start_mark.line, key.start_mark.column
        _note(value, keys, places, twice)
