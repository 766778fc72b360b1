"""Which code runs as part of a workflow: its own, and that of every helper it calls. Never what a Step is given."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from .meaning import Resolver
from .project import shown
from .scopes import Class, Function, Module
from .things import Instance, named

__all__ = ["Code", "Graph", "Problem", "callback_of", "initialisers", "reach", "workflows_of"]

_WITH_KEY = {"builtins.sorted", "builtins.min", "builtins.max", "itertools.groupby", "heapq.nsmallest"}
_WITH_KEY |= {"heapq.nlargest", "heapq.merge", "bisect.bisect"}
_WITH_FUNCTION = {"builtins.map", "builtins.filter", "functools.reduce", "builtins.iter", "collections.defaultdict"}
_WITH_FUNCTION |= {"itertools.takewhile", "itertools.dropwhile", "itertools.starmap", "itertools.filterfalse"}
_MADE_BY = ("__new__", "__init__", "__attrs_pre_init__", "__attrs_post_init__", "__post_init__")


class Code(msgspec.Struct, eq=False):
    """A function that runs as part of a workflow.

    Attributes:
        workflow: name of the first workflow that gets there.
        through: the calls by which it does.
    """

    function: Function
    workflow: str
    through: tuple[str, ...] = ()

    @property
    def nodes(self) -> list[ast.AST]:
        """What is evaluated when it runs."""
        return self.function.scope.nodes


class Problem(msgspec.Struct, eq=False):
    """What a check has found: where, which rule, and the two sentences; the rule's own remedy when it says none."""

    node: ast.AST
    rule: str
    reason: str
    remedy: str = ""


class Graph:
    """All code that is reached, and from where.

    Attributes:
        codes: by function.
        sites: for each function, the calls that reach it.
    """

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.codes: dict[Function, Code] = {}
        self.sites: dict[Function, list[ast.Call]] = {}

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node that a node is a part of."""
        owner = self.resolver.owner(node)
        return owner.module.parents.get(node) if owner else None


def workflows_of(module: Module, resolver: Resolver) -> Iterator[tuple[Function, str]]:
    """The workflows of a file with their names, and after them its helper generators, which are annotated with Flow."""
    helpers = []
    wrapped = set(_wrapped(module, resolver))
    for function in module.functions:
        if not function.yields:
            continue
        name = getattr(function.node, "name", "")
        if any(_is_workflow(one, resolver) for one in function.decorators) or function in wrapped:
            yield function, name
        elif _named_flow(function, resolver):
            helpers.append((function, name))
    yield from helpers


def _is_workflow(decorator: ast.expr, resolver: Resolver) -> bool:
    inner = decorator.func if isinstance(decorator, ast.Call) else decorator
    return named(resolver.of(inner)) == "stepwell.workflow"


def _wrapped(module: Module, resolver: Resolver) -> Iterator[Function]:
    """Functions that are made workflows by a call: `workflow(f)`, `workflow(name="g")(f)`."""
    for node in module.owners:
        if isinstance(node, ast.Call) and len(node.args) == 1 and _is_workflow(node.func, resolver):
            found = resolver.of(node.args[0])
            if isinstance(found, Function):
                yield found


def _named_flow(function: Function, resolver: Resolver) -> bool:
    scope = function.scope.parent or function.scope
    node = function.returns
    base = node.value if isinstance(node, ast.Subscript) else node
    return named(resolver.annotated(base, scope)) == "stepwell.Flow"


def reach(resolver: Resolver, roots: list[tuple[Function, str]]) -> Graph:
    """Everything that these functions call, and so on, each once."""
    graph = Graph(resolver)
    ahead = deque(Code(function, name) for function, name in roots)
    while ahead:
        code = ahead.popleft()
        if code.function in graph.codes:
            continue
        graph.codes[code.function] = code
        place = f"{code.function.name} ({shown(code.function.module.path)}:"
        for node, function in _called_by(code, resolver):
            if isinstance(node, ast.Call):
                graph.sites.setdefault(function, []).append(node)
            line = getattr(node.context_expr if isinstance(node, ast.withitem) else node, "lineno", 0)
            ahead.append(Code(function, code.workflow, (*code.through, f"{place}{line})")))
    return graph


def _called_by(code: Code, resolver: Resolver) -> Iterator[tuple[ast.AST, Function]]:
    """What runs when this code runs, and the node that makes it run."""
    for node in code.nodes:
        if isinstance(node, ast.Call):
            target = resolver.of(node.func)
            found: list[Any] = [target, resolver.of(callback_of(node, resolver))]
            if isinstance(target, Class):
                found += initialisers(target, resolver)
            elif isinstance(target, Instance) and isinstance(target.cls, Class):
                found.append(resolver.attribute(target, "__call__"))
        elif isinstance(node, ast.Attribute):
            found = [resolver.property_of(resolver.of(node.value), node.attr)]
        elif isinstance(node, ast.withitem):
            manager = resolver.of(node.context_expr)
            project = isinstance(manager, Instance) and isinstance(manager.cls, Class)
            found = [resolver.attribute(manager, name) for name in ("__enter__", "__exit__")] if project else []
        else:
            continue
        for function in found:
            if isinstance(function, Function):
                yield node, function


def callback_of(call: ast.Call, resolver: Resolver) -> ast.expr | None:
    """What a builtin calls at once for its caller: the key of `sorted`, the function of `map`."""
    name = named(resolver.of(call.func))
    if name in _WITH_FUNCTION and call.args:
        return call.args[0]
    sorts = name in _WITH_KEY or (isinstance(call.func, ast.Attribute) and call.func.attr == "sort")
    return next((one.value for one in call.keywords if one.arg == "key"), None) if sorts else None


def initialisers(cls: Class, resolver: Resolver) -> list[Function]:
    """What runs when an object of the class is made."""
    found = [resolver.attribute(cls, name) for name in _MADE_BY]
    return [one for one in found if isinstance(one, Function)]
