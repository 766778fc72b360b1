"""What is yielded, and what should have been: commands that nobody yields, generators that nobody begins."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from ... import commands
from .reach import Code, Graph, Problem
from .scopes import Class, Function, Module
from .things import COMMANDS, External, Instance, Maker, is_command, named

__all__ = ["yielding"]

_CALL_A_FUNCTION = {"stepwell.Step", "stepwell.Transaction", "stepwell.Stream", "stepwell.Compensate", "stepwell.Child"}
_GROUPS = {"stepwell.All", "stepwell.Race"}
_OF_GENERATORS = {"send", "throw", "close", "gi_frame", "gi_running", "gi_code", "gi_yieldfrom"}
_OF_COMMANDS = {name for kind in COMMANDS for name in dir(getattr(commands, kind))}
_PLAIN = {f"builtins.{name}" for name in ("str", "int", "float", "bool", "complex", "bytes", "list", "dict", "tuple")}
_PLAIN |= {
    "builtins.set",
    "builtins.frozenset",
    "builtins.NoneType",
    "builtins.range",
    "builtins.ellipsis",
    "unordered",
}
_GIVES_PLAIN = {
    f"builtins.{name}" for name in ("len", "sum", "abs", "round", "repr", "format", "print", "input", "hash")
}
_GIVES_PLAIN |= {
    f"builtins.{name}" for name in ("any", "all", "chr", "ord", "divmod", "isinstance", "id", "open", "str")
}
_NO_COMMANDS = {
    "json",
    "re",
    "math",
    "time",
    "datetime",
    "os",
    "random",
    "uuid",
    "hashlib",
    "pathlib",
    "string",
    "typing",
}
_NO_COMMANDS |= {"decimal", "fractions", "statistics", "secrets", "subprocess", "requests", "httpx", "urllib", "shutil"}
_NO_COMMANDS |= {
    "socket",
    "sqlite3",
    "base64",
    "textwrap",
    "zlib",
    "calendar",
    "sys",
    "threading",
    "logging",
    "collections",
}
_USED = (
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.FormattedValue,
    ast.If,
    ast.While,
    ast.Subscript,
    ast.Await,
    ast.Assert,
)
_PASSES = (ast.IfExp, ast.BoolOp, ast.NamedExpr)


def yielding(code: Code, graph: Graph) -> Iterator[Problem]:
    """Find commands and generators that go nowhere, and yields of what is no command."""
    check = _Yields(code, graph)
    manager = any(named(graph.resolver.of(one)).startswith("contextlib.") for one in code.function.decorators)
    for node in code.nodes:
        if isinstance(node, ast.Call):
            yield from check.made(node)
            yield from check.handed_over(node)
        elif isinstance(node, ast.Yield) and not manager:
            yield from check.yielded(node)
        elif isinstance(node, ast.YieldFrom):
            yield from check.yielded_from(node)


class _Yields:
    def __init__(self, code: Code, graph: Graph) -> None:
        self._code = code
        self._graph = graph
        self._of = graph.resolver.of

    # ---- commands and generators

    def made(self, node: ast.Call) -> Iterator[Problem]:
        """A command or generator that this call makes, when nothing comes of it."""
        thing = self._of(node)
        maker = isinstance(thing, Maker) and isinstance(thing.function, Function)
        if not maker and not is_command(thing):
            return
        if not (self._goes_nowhere(node, thing) or self._kept_for_nothing(node, thing)):
            return
        text = _short(node)
        if maker:
            yield Problem(
                node, "yield-from", f"{text} only makes a generator: nothing of {_name(thing)} runs.", _begin(thing)
            )
        else:
            yield Problem(node, "unyielded", f"{text} makes a command that is never yielded: nothing is performed.")

    def _kept_for_nothing(self, node: ast.AST, thing: Any) -> bool:
        """Whether a variable keeps it, alone or in a list, and nothing comes of the variable."""
        parent, listed = self._graph.parent(node), False
        while parent is not None and ((choice := _is_choice(parent, node)) or _is_list(parent, node)):
            listed = listed or not choice
            node, parent = parent, self._graph.parent(parent)
        if isinstance(parent, ast.Expr):
            return listed
        if not isinstance(parent, (ast.Assign, ast.AnnAssign)):
            return False
        target = parent.targets[0] if isinstance(parent, ast.Assign) else parent.target
        single = not isinstance(parent, ast.Assign) or len(parent.targets) == 1
        return (
            isinstance(target, ast.Name) and single and self._variable_goes_nowhere(target, None if listed else thing)
        )

    def _goes_nowhere(self, node: ast.AST, thing: Any) -> bool:
        """Whether a command or generator is dropped, or used as if it were its own result."""
        parent = self._graph.parent(node)
        if isinstance(parent, _PASSES) and not (isinstance(parent, ast.IfExp) and parent.test is node):
            if isinstance(parent, ast.NamedExpr) and self._code.function.scope.names.get(parent.target.id):
                return self._goes_nowhere(parent, thing) and self._variable_goes_nowhere(parent.target, thing)
            return self._goes_nowhere(parent, thing)
        if isinstance(parent, (ast.Expr, ast.IfExp, *_USED)):
            return True
        if isinstance(parent, (ast.For, ast.comprehension)):
            return parent.iter is node and (is_command(thing) or self._is_drained(parent, thing))
        if isinstance(parent, ast.Attribute):
            return parent.attr not in (_OF_COMMANDS if is_command(thing) else _OF_GENERATORS)
        if isinstance(parent, ast.Return):
            return self._is_wrong_return()
        if isinstance(parent, ast.keyword):
            parent = self._graph.parent(parent)
        if isinstance(parent, ast.Call) and parent.func is not node:
            taker = self._of(parent)
            if not is_command(thing) and node in parent.args[:1]:
                return False  # `Step(helper(x))`, of which handed_over speaks
            return is_command(taker) and named(taker) not in _GROUPS
        return False

    def _is_drained(self, loop: ast.For | ast.comprehension, thing: Maker) -> bool:
        """Whether a loop goes over a helper generator as if it gave its result, and yields nothing of it on."""
        if not isinstance(loop, ast.For) or not isinstance(thing.function, Function):
            return False
        turn = ast.unparse(loop.target)
        handed_on = any(turn in ast.unparse(node) for part in loop.body for node in ast.walk(part) if _is_yield(node))
        return named(self._graph.resolver.returned(thing.function)) == "stepwell.Flow" and not handed_on

    def _is_wrong_return(self) -> bool:
        """Whether a generator function returns what it should have yielded."""
        function = self._code.function
        if not function.yields:
            return False
        said = self._graph.resolver.returned(function)
        if named(said) != "stepwell.Flow":
            return any(named(self._of(one)) == "stepwell.workflow" for one in function.decorators)
        given = said.args[-1] if said.args else None
        return not (is_command(given) or named(given) in ("stepwell.Flow", "typing.Generator"))

    def _variable_goes_nowhere(self, target: ast.Name, thing: Any) -> bool:
        """Whether nothing comes of a variable that holds a command or generator; of a list of them, for None."""
        scope = self._graph.resolver.owner(target)
        if scope is None or len(scope.names.get(target.id, ())) != 1 or target.id in scope.outer:
            return False
        loads = [
            node
            for node in ast.walk(scope.node)
            if isinstance(node, ast.Name) and node.id == target.id and isinstance(node.ctx, ast.Load)
        ]
        drops = self._is_looked_at if thing is None else lambda node: self._goes_nowhere(node, thing)
        return all(scope.module.owners.get(node) is scope and drops(node) for node in loads)

    def _is_looked_at(self, node: ast.AST) -> bool:
        """Whether a list is only counted, or tested for being empty."""
        parent = self._graph.parent(node)
        if isinstance(parent, ast.Call) and parent.args == [node]:
            return named(self._of(parent.func)) in ("builtins.len", "builtins.bool")
        return isinstance(parent, (ast.If, ast.UnaryOp, ast.Expr, ast.Assert))

    # ---- yields

    def yielded(self, node: ast.Yield) -> Iterator[Problem]:
        """`yield` of what is no command."""
        value = node.value
        if value is None:
            if not self._is_unreachable(node):
                yield Problem(
                    node,
                    "no-command",
                    "A bare `yield` asks for nothing, and the engine refuses it.",
                    "Yield a command.",
                )
            return
        thing = self._of(value)
        if isinstance(thing, Maker):
            yield Problem(
                value,
                "no-command",
                f"`yield {_short(value)}` yields a generator, which is no command.",
                f"Write `yield from {_short(value)}`.",
            )
        elif isinstance(thing, (Function, Class, Module)):
            yield Problem(
                value,
                "no-command",
                f"`yield {_short(value)}` yields {_kind(thing)} itself, which is no command.",
                f"Write `yield from Step({_short(value)}, ...)`.",
            )
        elif self._is_plain(value, thing):
            yield self._no_command(value)

    def _is_unreachable(self, node: ast.Yield) -> bool:
        """Whether it stands right after a return, which is how one makes a generator function of nothing."""
        statement = self._graph.parent(node)
        around = self._graph.parent(statement) if isinstance(statement, ast.Expr) else None
        for name in ("body", "orelse", "finalbody"):
            block = getattr(around, name, None)
            if isinstance(block, list) and statement in block:
                place = block.index(statement)
                return place > 0 and isinstance(block[place - 1], (ast.Return, ast.Raise))
        return False

    def yielded_from(self, node: ast.YieldFrom) -> Iterator[Problem]:
        """`yield from` of a plain function's result."""
        thing = self._of(node.value)
        scalar = named(thing) in _PLAIN - {"builtins.list", "builtins.tuple"} or isinstance(thing, Function)
        if scalar or (self._is_plain(node.value, thing) and isinstance(node.value, ast.Call) and named(thing) == ""):
            yield self._no_command(node.value)

    def _no_command(self, value: ast.expr) -> Problem:
        if isinstance(value, ast.Call):
            text = (
                f"{_short(value)} is called by the workflow itself, at every replay, and what it gives is no command."
            )
            function = ast.unparse(value.func)
            return Problem(
                value, "no-command", text, f"Write `yield from Step({function}{', ...' if value.args else ''})`."
            )
        return Problem(
            value, "no-command", f"{_short(value)} is no command, and the engine refuses it.", "Yield a command."
        )

    def _is_plain(self, node: ast.expr, thing: Any) -> bool:
        """Whether something is surely no command."""
        if isinstance(thing, Instance):
            name = named(thing)
            if isinstance(thing.cls, Class):
                return not self._may_be_command(thing.cls)
            if name in ("builtins.object", "types.GeneratorType") or name.startswith("stepwell."):
                return False
            return name in _PLAIN or name.partition(".")[0] in _NO_COMMANDS
        if isinstance(node, ast.Call):
            name = named(self._of(node.func))
            return name in _GIVES_PLAIN or (name.partition(".")[0] in _NO_COMMANDS and "." in name)
        return False

    def _may_be_command(self, cls: Class, depth: int = 0) -> bool:
        """Whether a class has a base that the project does not define."""
        for base in cls.node.bases:
            parent = self._of(base.value if isinstance(base, ast.Subscript) else base)
            known = isinstance(parent, External) and parent.name.startswith(("builtins.", "typing.", "enum.", "abc."))
            if isinstance(parent, Class) and depth < 10:
                known = not self._may_be_command(parent, depth + 1)
            if not known:
                return True
        return "__iter__" in cls.scope.names

    # ---- functions that commands are given

    def handed_over(self, node: ast.Call) -> Iterator[Problem]:
        """`Step(f(x))` in place of `Step(f, x)`, and `All(f(x))` of a plain function."""
        name = named(self._of(node)) if is_command(self._of(node)) else ""
        if named(self._of(node.func)) != name:
            return  # `.options(...)` of it
        if name in _CALL_A_FUNCTION:
            parts = node.args[:1]
        elif name in _GROUPS:
            parts = [*node.args, *(one.value for one in node.keywords if one.arg not in ("limit", "settle", None))]
        else:
            return
        kind = name.partition(".")[2]
        for part in parts:
            thing = self._of(part)
            wrong = isinstance(part, ast.Call) and (self._is_plain(part, thing) and not self._can_be_called(thing))
            made = name not in _GROUPS and isinstance(thing, Maker)
            if wrong or made:
                function = ast.unparse(part.func) if isinstance(part, ast.Call) else _short(part)
                give = f"{kind}({function}, ...)" if name not in _GROUPS else f"{kind}(Step({function}, ...), ...)"
                text = f"{_short(part)} is called here, at every replay, and {kind} is given what comes of it."
                yield Problem(part, "no-command", text, f"Hand the function over: `{give}`.")

    def _can_be_called(self, thing: Any) -> bool:
        return isinstance(thing, Instance) and isinstance(thing.cls, Class) and "__call__" in thing.cls.scope.names


def _is_choice(parent: ast.AST | None, node: ast.AST) -> bool:
    """Whether something is one of two ways of what stands around it."""
    return isinstance(parent, ast.BoolOp) or (isinstance(parent, ast.IfExp) and parent.test is not node)


def _is_list(parent: ast.AST | None, node: ast.AST) -> bool:
    """Whether something is an item of a list or tuple that is written here."""
    if isinstance(parent, (ast.List, ast.Tuple)):
        return isinstance(parent.ctx, ast.Load)
    return isinstance(parent, (ast.ListComp, ast.SetComp, ast.GeneratorExp)) and parent.elt is node


def _is_yield(node: ast.AST) -> bool:
    return isinstance(node, (ast.Yield, ast.YieldFrom))


def _name(thing: Maker) -> str:
    function = thing.function
    return f"{function.name}()" if isinstance(function, Function) else "it"


def _begin(thing: Maker) -> str:
    name = thing.function.name if isinstance(thing.function, Function) else "helper"
    return f"Write `yield from {name}(...)`, or hand it to `All` or `Race`."


def _kind(thing: Any) -> str:
    return "a class" if isinstance(thing, Class) else "a module" if isinstance(thing, Module) else "a function"


def _short(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 40 else f"{text[:36]}..."
