"""How a workflow is left: handlers that swallow a cancel, clean-up that waits, what is held while it is parked."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from .catalogue import rule_of
from .ordering import is_logger
from .reach import Code, Graph, Problem
from .scopes import Function
from .sharing import CHANGES
from .things import External, Instance, Maker, is_command, named

__all__ = ["leaving"]

_TRIES = (ast.Try, ast.TryStar)
_YIELDS = (ast.Yield, ast.YieldFrom)
_WAITS = {"stepwell.Suspend", "stepwell.Sleep"}
_GROUPS = {"stepwell.All", "stepwell.Race"}
_TOO_WIDE = {"builtins.BaseException", "builtins.GeneratorExit"}
_HOLDS_NOTHING = {"contextlib.suppress", "contextlib.nullcontext", "decimal.localcontext", "stepwell."}
_RELEASES = {"close", "release", "shutdown", "disconnect", "unlink", "terminate", "kill", "stop", "commit", "rollback"}
_PARKED = "in a `finally` around a `yield` it runs each time the run is parked"


def leaving(code: Code, graph: Graph) -> Iterator[Problem]:
    """Find handlers, `finally` blocks and `with` statements around a `yield`."""
    if not code.function.yields or any(_is_manager(one, graph) for one in code.function.decorators):
        return
    for node in code.nodes:
        if isinstance(node, _TRIES):
            if _yields_in(node.body, code):
                yield from _handlers(node, graph)
            if _yields_in([*node.body, *node.handlers, *node.orelse], code):
                yield from _finally(node, code, graph)
        elif isinstance(node, ast.With) and _yields_in(node.body, code):
            yield from _held(node, graph)


def _is_manager(decorator: ast.expr, graph: Graph) -> bool:
    return named(graph.resolver.of(decorator)).startswith("contextlib.")


def _inside(parts: Iterable[ast.AST], code: Code) -> Iterator[ast.AST]:
    """The nodes in these parts that run with the function itself."""
    owners = code.function.module.owners
    return (node for part in parts for node in ast.walk(part) if owners.get(node) is code.function.scope)


def _yields_in(parts: Iterable[ast.AST], code: Code) -> bool:
    return any(isinstance(node, _YIELDS) for node in _inside(parts, code))


# ---- handlers


def _handlers(node: ast.Try | ast.TryStar, graph: Graph) -> Iterator[Problem]:
    passed_on: set[str] = set()
    for handler in node.handlers:
        caught = _caught(handler, graph)
        raises = _ends_in_raise(handler.body)
        if raises:
            passed_on |= caught
        if {"stepwell.Cancelled", "builtins.GeneratorExit"} <= passed_on or "builtins.BaseException" in passed_on:
            return
        wide = _TOO_WIDE & caught
        if wide and not raises:
            what = "A bare `except`" if handler.type is None else f"`except {min(wide).partition('.')[2]}`"
            yield Problem(
                handler,
                "swallow",
                f"{what} around a `yield` stops a cancel and the exception by which a parked run leaves memory.",
            )


def _caught(handler: ast.ExceptHandler, graph: Graph) -> set[str]:
    if handler.type is None:
        return {"builtins.BaseException"}
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {named(graph.resolver.of(kind)) for kind in kinds}


def _ends_in_raise(body: list[ast.stmt]) -> bool:
    last = body[-1]
    if isinstance(last, ast.Raise):
        return True
    if isinstance(last, ast.If):
        return bool(last.orelse) and _ends_in_raise(last.body) and _ends_in_raise(last.orelse)
    if isinstance(last, ast.With):
        return _ends_in_raise(last.body)
    if isinstance(last, ast.Try):
        return _ends_in_raise(last.finalbody or last.body)
    return False


# ---- finally


def _finally(node: ast.Try | ast.TryStar, code: Code, graph: Graph) -> Iterator[Problem]:
    for inner in _inside(node.finalbody, code):
        if isinstance(inner, ast.Return) or (
            isinstance(inner, (ast.Break, ast.Continue)) and _leaves(inner, node, graph)
        ):
            word = type(inner).__name__.lower()
            yield Problem(
                inner,
                "swallow",
                f"`{word}` in a `finally` around a `yield` drops whatever exception was on its way, a cancel too.",
                f"Move the `{word}` out of the `finally`.",
            )
        elif isinstance(inner, _YIELDS):
            wait = _wait_in(graph.resolver.of(inner.value), inner.value, graph)
            if wait:
                yield Problem(
                    inner,
                    "finally",
                    f"{wait} in a `finally` is refused once the run is cancelled: `Cancelled` is raised in its place.",
                    "Clean up with steps only; wait before or after the `try`.",
                )
        elif (
            isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Call) and _has_effect(inner.value, code, graph)
        ):
            text = ast.unparse(inner.value.func)
            yield Problem(inner.value, "finally", f"{text}() is plain Python, and {_PARKED}.")


def _leaves(node: ast.AST, outer: ast.AST, graph: Graph) -> bool:
    """Whether a break or continue is about a loop around the `try`, not one in its `finally`."""
    at = graph.parent(node)
    while at is not None and at is not outer:
        if isinstance(at, (ast.For, ast.While)):
            return False
        at = graph.parent(at)
    return True


def _wait_in(thing: object, node: ast.AST | None, graph: Graph, depth: int = 0) -> str:
    """What waits in something that is yielded; "" when nothing does, as far as it can be told."""
    name = named(thing)
    if name in _WAITS:
        return name.partition(".")[2]
    if name in _GROUPS and isinstance(node, ast.Call):
        parts = [*node.args, *(one.value for one in node.keywords)]
        return next(filter(None, (_wait_in(graph.resolver.of(one), one, graph, depth + 1) for one in parts)), "")
    if isinstance(thing, Maker) and isinstance(thing.function, Function) and depth < 10:
        for inner in thing.function.scope.nodes:
            if isinstance(inner, _YIELDS):
                found = _wait_in(graph.resolver.of(inner.value), inner.value, graph, depth + 1)
                if found:
                    return found if " in " in found else f"{found} in {thing.function.name}()"
    return ""


def _has_effect(call: ast.Call, code: Code, graph: Graph) -> bool:
    """Whether a call whose result nobody wants is there for an effect that outlives the run."""
    target = graph.resolver.of(call.func)
    name = named(target)
    if is_command(graph.resolver.of(call)) or rule_of(name)[0]:
        return False  # another rule speaks of it
    if isinstance(target, Function):
        return not target.yields
    if not isinstance(call.func, ast.Attribute):
        return isinstance(target, External) and not name.startswith("builtins.")
    if is_logger(call.func.value, name):
        return False
    base = graph.resolver.of(call.func.value)
    if isinstance(base, Instance) and named(base).startswith("builtins."):
        return False  # a container; whether it is shared is for another rule
    root: ast.expr = call.func.value
    while isinstance(root, (ast.Attribute, ast.Subscript)):
        root = root.value
    scope = code.function.scope
    binding, owner = graph.resolver.lookup(root.id, scope, root) if isinstance(root, ast.Name) else (None, None)
    if isinstance(root, ast.Call) or (owner is scope and binding is not None and binding.kind != "param"):
        return call.func.attr in _RELEASES
    return call.func.attr not in CHANGES


# ---- with


def _held(node: ast.With, graph: Graph) -> Iterator[Problem]:
    for item in node.items:
        call = item.context_expr
        target = graph.resolver.of(call.func) if isinstance(call, ast.Call) else graph.resolver.of(call)
        name = named(target)
        if name == "contextlib.suppress" and isinstance(call, ast.Call):
            wide = [one for one in call.args if named(graph.resolver.of(one)) in _TOO_WIDE]
            if wide:
                yield Problem(
                    call,
                    "swallow",
                    f"`suppress({ast.unparse(wide[0])})` around a `yield` stops a cancel and the exception by which a "
                    "parked run leaves memory.",
                    "Suppress `Exception` or less.",
                )
        elif not name.startswith(tuple(_HOLDS_NOTHING)) and not rule_of(name)[0]:
            yield Problem(
                call,
                "finally",
                f"`with {_short(call)}` is held across a `yield`: it is left, and entered anew, at each park.",
                "Hold it inside of a Step.",
            )


def _short(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 40 else f"{text[:36]}..."
