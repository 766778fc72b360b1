"""Clocks, chance, files, the environment, threads: what is known by its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from .catalogue import NEEDS_ARGUMENTS, READS, rule_of
from .reach import Code, Graph, Problem, callback_of
from .scopes import Class, Scope
from .things import External, Instance, named

__all__ = ["impure"]

_SAYS = {
    "clock": "{} depends on when it runs, and a replay runs at another time.",
    "random": "{} gives something else on a replay.",
    "hash": "{} gives something else in another process.",
    "io": "{} reaches out of the program, at every replay again.",
    "environment": "{} may be something else in the process that replays.",
    "thread": "{} starts or serves what runs beside the workflow, which no history records.",
    "global": "{} is shared by all that runs, and may be something else on a replay.",
}
_FIELDS = {"dataclasses.field", "attrs.field", "attr.ib", "attr.field", "pydantic.Field", "msgspec.field"}
_AT_IMPORT = {"clock", "random", "environment"}


def impure(code: Code, graph: Graph) -> Iterator[Problem]:
    """Find calls and reads that `catalogue` knows."""
    heads: set[ast.AST] = set()  # parts of what was looked at as a whole
    for node in code.nodes:
        if isinstance(node, ast.Call):
            heads.update(_chain(node.func))
            yield from _call(node, graph)
        elif isinstance(node, (ast.Attribute, ast.Name)) and node not in heads:
            heads.update(_chain(node))
            yield from _read(node, graph)
        elif isinstance(node, ast.Name):
            yield from _set_at_import(node, graph)
    yield from _locks(code, graph)


def _chain(node: ast.expr) -> Iterator[ast.AST]:
    """`a.b.c` with its parts, down to the name."""
    yield node
    while isinstance(node, ast.Attribute):
        node = node.value
        yield node


def _call(node: ast.Call, graph: Graph) -> Iterator[Problem]:
    target = graph.resolver.of(node.func)
    yield from _calls(node, target, graph)
    callback = callback_of(node, graph.resolver)
    if callback is not None:
        found = graph.resolver.of(callback)
        if isinstance(found, External):
            yield from _named(callback, found.name, len(NEEDS_ARGUMENTS))
    if isinstance(target, Class):
        yield from _factories(node, target, graph)


def _calls(node: ast.Call, target: Any, graph: Graph) -> Iterator[Problem]:
    if not isinstance(target, External):
        return
    given = len(node.args) + len(node.keywords)
    shared = target.name.startswith(("random.Random.", "numpy.random.Generator.")) and _outlives(node.func, graph)
    if shared:
        yield Problem(
            node, "random", f"{_text(node.func)}() draws from a generator that other runs, and replays, draw from too."
        )
    else:
        yield from _named(node, target.name, given, _text(node.func) + "()")


def _named(node: ast.AST, name: str, given: int, text: str = "") -> Iterator[Problem]:
    rule, remedy = rule_of(name)
    if rule and given < NEEDS_ARGUMENTS.get(name, given + 1):
        yield Problem(node, rule, _SAYS[rule].format(text or name), remedy)


def _read(node: ast.Attribute | ast.Name, graph: Graph) -> Iterator[Problem]:
    if not isinstance(node.ctx, ast.Load):
        return
    for part in _chain(node):
        found = graph.resolver.of(part)
        name = found.name if isinstance(found, External) else ""
        if name in READS:
            rule, remedy = rule_of(name)
            yield Problem(part, rule, _SAYS[rule].format(name), remedy)
            return
    root = list(_chain(node))[-1]
    if isinstance(root, ast.Name):
        yield from _set_at_import(root, graph)


def _set_at_import(node: ast.Name, graph: Graph) -> Iterator[Problem]:
    """A global that was set from a clock, by chance or from the environment when its module was imported."""
    resolver = graph.resolver
    scope = resolver.owner(node)
    if scope is None or not isinstance(node.ctx, ast.Load):
        return
    binding, owner = resolver.lookup(node.id, scope, node)
    if binding is not None and binding.kind == "import":
        home, _, name = binding.target.rpartition(".")
        module = resolver.project.module(home) if home else None
        if module is None:
            return
        binding, owner = resolver.lookup(name, module.scope, None)
    if binding is None or owner is None or binding.kind != "assign" or not isinstance(owner.node, ast.Module):
        return
    rule = next(_hidden_in(binding.value, graph), "") if binding.value is not None else ""
    if rule:
        what = {"clock": "a clock", "random": "chance", "environment": "the environment"}[rule]
        yield Problem(
            node, rule, f"{node.id} was set from {what} when its module was imported: a replay may meet another value."
        )


def _hidden_in(value: ast.expr, graph: Graph) -> Iterator[str]:
    """The rules that an expression at the top of a module breaks, of those whose outcome stays in its value."""
    for node in ast.walk(value):
        found: Any = None
        if isinstance(node, ast.Lambda):
            return
        if isinstance(node, ast.Call):
            found = graph.resolver.of(node.func)
            enough = NEEDS_ARGUMENTS.get(named(found), 1000)
            if len(node.args) + len(node.keywords) >= enough:
                continue
        elif isinstance(node, ast.Attribute):
            found = graph.resolver.of(node)
            if named(found) not in READS:
                continue
        rule = rule_of(found.name)[0] if isinstance(found, External) else ""
        if rule in _AT_IMPORT and named(found) not in ("random.Random", "random.SystemRandom"):
            yield rule


def _factories(node: ast.Call, cls: Class, graph: Graph) -> Iterator[Problem]:
    """Fields of a class whose values are made by a clock or by chance, when the call leaves them out."""
    given = {one.arg for one in node.keywords}
    if None in given or any(isinstance(one, ast.Starred) for one in node.args):
        return
    fields = [one for one in cls.node.body if isinstance(one, ast.AnnAssign)]
    for i, one in enumerate(fields):
        left_out = i >= len(node.args) and ast.unparse(one.target) not in given
        if not left_out or not isinstance(one.value, ast.Call):
            continue
        if named(graph.resolver.of(one.value.func)) in _FIELDS:
            factory = next((k.value for k in one.value.keywords if k.arg in ("factory", "default_factory")), None)
            found = graph.resolver.of(factory)
            if factory is not None and isinstance(found, External):
                text = f"{found.name}(), which makes a field of {cls.name},"
                yield from _named(factory, found.name, 0, text)


def _outlives(node: ast.expr, graph: Graph) -> bool:
    """Whether what a method is called on was there before the run."""
    root = list(_chain(node))[-1]
    scope = graph.resolver.owner(root)
    if not isinstance(root, ast.Name) or scope is None:
        return False
    _, owner = graph.resolver.lookup(root.id, scope, root)
    return owner is not None and not _is_reached(owner, graph)


def _is_reached(scope: Scope, graph: Graph) -> bool:
    function = scope.module.function_of.get(scope.node)
    return function is not None and function in graph.codes


def _locks(code: Code, graph: Graph) -> Iterator[Problem]:
    """`with lock:`, which names no method."""
    for node in code.nodes:
        if isinstance(node, ast.withitem) and not isinstance(node.context_expr, ast.Call):
            found = graph.resolver.of(node.context_expr)
            if isinstance(found, Instance) and rule_of(named(found))[0] == "thread":
                yield Problem(node.context_expr, "thread", _SAYS["thread"].format(_text(node.context_expr)))


def _text(node: ast.expr) -> str:
    """An expression as it stands there, if it is short."""
    text = ast.unparse(node)
    return text if len(text) <= 40 else f"...{text[-36:]}"
