"""Modules, classes and functions with the names that they bind: what an expression's meaning is read from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Binding", "Class", "Function", "Module", "Scope", "own_nodes", "parse_module", "position"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Binding(msgspec.Struct, eq=False):
    """One place that gives a name its meaning.

    Attributes:
        kind: import, def, class, assign, element (of what a loop goes over), with, param, or other.
        node: what binds.
        value: the expression whose value, element or context it gets.
        annotation: what it is said to be.
        target: for an import, the dotted name.
        thing: for def and class, what is defined.
        since: position from which it holds.
        within: the only node in which it holds, for variables of comprehensions.
    """

    kind: str
    node: ast.AST
    value: ast.expr | None = None
    annotation: ast.expr | None = None
    target: str = ""
    thing: Any = None
    since: tuple[int, int] = (0, 0)
    within: ast.AST | None = None


class Scope(msgspec.Struct, eq=False):
    """A module, a class, a function or a lambda.

    Attributes:
        node: what it is made of.
        parent: the scope that it lies in.
        nodes: every node that is evaluated when its body runs: without inner functions, classes and annotations.
        outer: names that it declares global or nonlocal.
        stars: modules of which it imports everything.
    """

    node: ast.AST
    module: Module
    parent: Scope | None
    nodes: list[ast.AST]
    names: dict[str, list[Binding]] = msgspec.field(default_factory=dict)
    outer: dict[str, str] = msgspec.field(default_factory=dict)
    stars: list[str] = msgspec.field(default_factory=list)


class Class(msgspec.Struct, eq=False):
    """A class of the project."""

    name: str
    node: ast.ClassDef
    inner: Scope | None = None  # None only while it is made, since its methods refer to it

    @property
    def scope(self) -> Scope:
        """The names that it binds."""
        assert self.inner is not None
        return self.inner


class Function(msgspec.Struct, eq=False):
    """A function or lambda of the project.

    Attributes:
        name: as people call it.
        owner: the class that it is a method of.
        yields: whether there is a `yield` in its own body.
    """

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: Scope
    owner: Class | None = None
    yields: bool = False

    @property
    def module(self) -> Module:
        """Where it is defined."""
        return self.scope.module

    @property
    def decorators(self) -> list[ast.expr]:
        """What stands above it."""
        return [] if isinstance(self.node, ast.Lambda) else self.node.decorator_list

    @property
    def returns(self) -> ast.expr | None:
        """What it is said to return."""
        return None if isinstance(self.node, ast.Lambda) else self.node.returns


class Module(msgspec.Struct, eq=False):
    """A file.

    Attributes:
        name: its dotted name; what relative imports begin from.
        functions: every function in it, at whatever depth.
        owners: the scope in which each node is evaluated.
    """

    name: str
    path: Path
    source: str
    is_package: bool = False
    functions: list[Function] = msgspec.field(default_factory=list)
    parents: dict[ast.AST, ast.AST] = msgspec.field(default_factory=dict)
    owners: dict[ast.AST, Scope] = msgspec.field(default_factory=dict)
    function_of: dict[ast.AST, Function] = msgspec.field(default_factory=dict)
    top: Scope | None = None  # as above

    @property
    def scope(self) -> Scope:
        """The names that it binds."""
        assert self.top is not None
        return self.top


def position(node: ast.AST) -> tuple[int, int]:
    """Where a node begins."""
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _end(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "end_lineno", 0), getattr(node, "end_col_offset", 0)


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that is evaluated when the body of a module, class or function runs, in the order of the text."""
    body: list[ast.AST] | ast.AST = getattr(node, "body", [])
    for child in body if isinstance(body, list) else [body]:
        yield from _evaluated(child)


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is evaluated with it. Annotations are not: they may name a clock."""
    yield node
    if isinstance(node, _SCOPES):
        inner: list[ast.AST] = list(getattr(node, "decorator_list", ()))
        if isinstance(node, ast.ClassDef):
            inner += [*node.bases, *node.keywords]
        else:
            inner += [*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)]
    elif isinstance(node, ast.AnnAssign):
        inner = [node.target, *([node.value] if node.value else [])]
    else:
        inner = list(ast.iter_child_nodes(node))
    for child in inner:
        yield from _evaluated(child)


def parse_module(name: str, path: Path, source: str) -> Module:
    """Read a file's text.

    Raises:
        SyntaxError: it is no Python.
    """
    tree = ast.parse(source, str(path))
    module = Module(name, path, source, path.name == "__init__.py")
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            module.parents[child] = node
    module.top = _scope(tree, module, None, None)
    return module


def _scope(node: ast.AST, module: Module, parent: Scope | None, owner: Class | None) -> Scope:
    scope = Scope(node, module, parent, list(own_nodes(node)))
    for inner in scope.nodes:
        module.owners[inner] = scope
        if isinstance(inner, (ast.Global, ast.Nonlocal)):
            kind = "global" if isinstance(inner, ast.Global) else "nonlocal"
            scope.outer.update(dict.fromkeys(inner.names, kind))
        elif isinstance(inner, _SCOPES):
            _define(inner, scope, owner)
        else:
            _bind(inner, scope)
    return scope


def _define(node: Any, scope: Scope, owner: Class | None) -> None:
    """An inner function, lambda or class: a scope of its own, and a name in this one."""
    module = scope.module
    if isinstance(node, ast.ClassDef):
        made = Class(node.name, node)
        made.inner = _scope(node, module, scope, made)
        _add(scope, node.name, Binding("class", node, thing=made, since=position(node)))
        return
    method = owner if isinstance(scope.node, ast.ClassDef) else None
    inner = _scope(node, module, scope, None)
    for argument in _arguments(node.args):
        many = argument in (node.args.vararg, node.args.kwarg)  # whose annotation is about each of them
        _add(inner, argument.arg, Binding("param", argument, annotation=None if many else argument.annotation))
    yields = any(isinstance(one, (ast.Yield, ast.YieldFrom)) for one in inner.nodes)
    name = getattr(node, "name", "lambda")
    function = Function(f"{method.name}.{name}" if method else name, node, inner, method, yields)
    module.functions.append(function)
    module.function_of[node] = function
    if not isinstance(node, ast.Lambda):
        _add(scope, node.name, Binding("def", node, thing=function, since=position(node)))


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    found = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [*found, *(one for one in (arguments.vararg, arguments.kwarg) if one is not None)]


def _bind(node: ast.AST, scope: Scope) -> None:
    """What a node binds in its scope."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        _bind_import(node, scope)
    elif isinstance(node, ast.Assign):
        for each in node.targets:
            _bind_target(each, node, "assign", node.value, scope)
    elif isinstance(node, ast.AnnAssign):
        if isinstance(node.target, ast.Name):
            binding = Binding("assign", node, node.value, node.annotation, since=_end(node))
            _add(scope, node.target.id, binding)
    elif isinstance(node, ast.NamedExpr):
        _bind_target(node.target, node, "assign", node.value, scope)
    elif isinstance(node, (ast.For, ast.AsyncFor)):
        _bind_target(node.target, node.target, "element", node.iter, scope)
    elif isinstance(node, _COMPREHENSIONS):
        for part in node.generators:
            _bind_target(part.target, part.target, "element", part.iter, scope, within=node)
    elif isinstance(node, ast.withitem):
        if node.optional_vars is not None:
            _bind_target(node.optional_vars, node.optional_vars, "with", node.context_expr, scope)
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        _add(scope, node.name, Binding("other", node, since=position(node)))


def _bind_import(node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
    for alias in node.names:
        if isinstance(node, ast.Import):
            name = alias.asname or alias.name.partition(".")[0]
            target = alias.name if alias.asname else name
        else:
            name, target = alias.asname or alias.name, f"{_absolute(node, scope.module)}.{alias.name}"
        if alias.name == "*":
            scope.stars.append(target.removesuffix(".*"))
        else:
            _add(scope, name, Binding("import", node, target=target, since=position(node)))


def _bind_target(
    target: ast.AST, node: ast.AST, kind: str, value: ast.expr, scope: Scope, within: ast.AST | None = None
) -> None:
    if isinstance(target, ast.Name):
        _add(scope, target.id, Binding(kind, node, value, since=_end(node), within=within))
    elif isinstance(target, (ast.Tuple, ast.List)):
        values = value.elts if kind == "assign" and isinstance(value, (ast.Tuple, ast.List)) else []
        for i, part in enumerate(target.elts):
            if len(values) == len(target.elts):
                _bind_target(part, node, kind, values[i], scope)
            else:
                inner = part.value if isinstance(part, ast.Starred) else part
                if isinstance(inner, ast.Name):
                    _add(scope, inner.id, Binding("other", node, since=_end(node), within=within))
                else:
                    _bind_target(inner, node, "other", value, scope, within)


def _add(scope: Scope, name: str, binding: Binding) -> None:
    if name not in scope.outer:
        scope.names.setdefault(name, []).append(binding)


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    """The dotted name of the module that a `from` names."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    kept = parts[: len(parts) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])])
