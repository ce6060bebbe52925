"""Which programs a source file calls, as far as its text tells.

What stands in the place of the program, in a call to one of `PLACES`, is followed through names, tuples and
paths, and on through programs that only start another one, such as `ip netns exec`.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PLACES = {
    r"subprocess\.(run|Popen|check_output)|os\.execvpe|shutil\.which": 0,
    r"find_program|first_line|Server|(network\.)?(_run|preflight)|(.*\.)?site\.ask": 0,
    r"run_client|in_namespace|node\.run|(.*\.)?(site|processes)\.start|.*\.(exec|command)": 1,
    r".*\.start": 2,
    r".*\.start_program": 1,
    r"running": 4,
}
"""Where the program stands, or a sequence that begins with it, by what is called; the first that fits."""

PASSES_ON = {
    "__init__", "_run", "_talking", "_told", "ask", "command", "exec", "find_program", "first_line",
    "in_namespace", "preflight", "run", "run_client", "running", "start", "start_program",
}  # fmt: skip
"""The functions that are given a program: their callers name it."""

UNKNOWN = "?"
"""In place of a word that only a run tells."""

_SHELL_WORDS = frozenset({":", "do", "done", "echo", "exec", "exit", "set", "shift", "trap", "while"})

Words = tuple[str, ...]


class Call(NamedTuple):
    """The programs that one call may start."""

    line: int
    programs: frozenset[str]


class Source:
    """One file, and the values that names are given anywhere in it."""

    def __init__(self, text: str) -> None:
        self._tree = ast.parse(text)
        self._values: dict[str, list[ast.expr]] = defaultdict(list)
        self._inside: dict[ast.AST, ast.FunctionDef] = {}
        self._busy: set[str] = set()
        for node in ast.walk(self._tree):
            self._note(node)

    def calls(self) -> Iterator[Call]:
        """Every call that starts a program or looks for one.

        A function that passes on what it was given and is not one of `PASSES_ON` is named instead: its
        callers would go unseen.
        """
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and (arguments := _from_program_on(node)):
                if (function := self._passing_on(arguments[0], node)) is None:
                    ways = self._words(arguments)
                    if "preflight" in ast.unparse(node.func):  # all that it is given are programs
                        ways = ((each,) for words in ways for each in words)
                    yield Call(node.lineno, frozenset(each for words in ways for each in programs(words)))
                elif function not in PASSES_ON:
                    yield Call(node.lineno, frozenset({f"{function}(...)"}))

    def _note(self, node: ast.AST) -> None:
        match node:
            case ast.FunctionDef():
                self._inside |= dict.fromkeys(ast.walk(node), node)
            case ast.Assign(targets=[target], value=value):
                self._values[_name(target)].append(value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._values[_name(target)].append(value)
            case ast.For(target=target, iter=ast.Tuple(elts=each) | ast.List(elts=each)):
                self._values[_name(target)] += each
            case ast.comprehension(target=target, iter=ast.Tuple(elts=each) | ast.List(elts=each)):
                self._values[_name(target)] += each

    def _passing_on(self, argument: ast.expr, call: ast.Call) -> str | None:
        """The name of the function around, if it was given this argument itself."""
        name = _name(argument.value if isinstance(argument, ast.Starred) else argument)
        if name in self._values or (function := self._inside.get(call)) is None:
            return None
        its = function.args
        given = {each.arg for each in (*its.posonlyargs, *its.args, its.vararg) if each}
        return function.name if name in given else None

    def _words(self, nodes: list[ast.expr]) -> Iterable[Words]:
        """Each way to read these as words."""
        ways = [list(self._value(node)) for node in nodes]
        return (tuple(itertools.chain(*parts)) for parts in itertools.product(*ways))

    def _value(self, node: ast.expr) -> Iterable[Words]:  # noqa: PLR0911 - one for each kind of node
        match node:
            case ast.Constant(value=str(text)):
                return [(text,)]
            case ast.JoinedStr(values=parts):
                return [("".join(map(_text, parts)),)]
            case ast.Tuple(elts=nodes) | ast.List(elts=nodes):
                return self._words(nodes)
            case ast.Starred(value=inner) | ast.BinOp(op=ast.Div(), right=inner):
                return self._value(inner)
            case ast.Call(func=ast.Name(id="str") | ast.Attribute(attr="with_name"), args=[inner]):
                return self._value(inner)
            case ast.Call(func=ast.Attribute(attr="split", value=inner)):
                return [tuple(words[0].split()) for words in self._value(inner)]
            case ast.Name() | ast.Attribute():
                return self._named(_name(node))
        return [(UNKNOWN,)]

    def _named(self, name: str) -> Iterable[Words]:
        if name == "sys.executable":
            return [("python3",)]
        if name in self._busy or name not in self._values:
            return [(UNKNOWN,)]
        self._busy.add(name)
        found = [words for value in self._values[name] for words in self._value(value)]
        self._busy.discard(name)
        return found


def programs(words: Words) -> Iterator[str]:
    """The program that these words call, and those that it starts in turn."""
    if not words or UNKNOWN in words[0] or words[0].startswith('"$'):
        return
    program, *rest = words
    if program not in _SHELL_WORDS:
        yield program
    match program, rest:
        case "ip", ["netns", "exec", _, *command]:
            yield from programs(tuple(command))
        case "env" | "exec" | "prlimit" | "setpriv" | "timeout" | "unshare" | "while" | "do", _:
            yield from programs(tuple(itertools.dropwhile(_is_option, rest)))
        case "sh" | "bash", ["-c", script, *_]:
            for part in re.split(r"[|;&\n]+", re.sub(r"'[^']*'|\d?>\S+", "", script)):
                yield from programs(tuple(part.split()))


def _from_program_on(call: ast.Call) -> list[ast.expr]:
    name = ast.unparse(call.func)
    place = next((at for pattern, at in PLACES.items() if re.fullmatch(pattern, name)), None)
    if place is None:
        return []
    arguments: list[ast.expr] = []
    for each in call.args:
        match each:
            case ast.Starred(value=ast.Tuple(elts=nodes)):
                arguments += nodes
            case _:
                arguments.append(each)
    return arguments[place:]


def _is_option(word: str) -> bool:
    return word.startswith(("-", "+")) or "=" in word or word.isupper() or word.isdigit() or word == UNKNOWN


def _name(node: ast.expr) -> str:
    return ast.unparse(node).removeprefix("self.")


def _text(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else UNKNOWN
