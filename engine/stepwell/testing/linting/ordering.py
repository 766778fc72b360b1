"""The order of sets: found where it decides what is yielded, returned or built, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .reach import Code, Graph, Problem
from .scopes import Scope
from .things import is_set, named

__all__ = ["is_logger", "set_order"]

_NO_MATTER = {f"builtins.{name}" for name in ("sorted", "set", "frozenset", "len", "sum", "min", "max", "any", "all")}
_NO_MATTER |= {"builtins.isinstance", "builtins.type", "builtins.bool", "collections.Counter", "math.fsum", "math.prod"}
_NO_MATTER |= {"builtins.id", "builtins.hash", "builtins.dict", "warnings.warn", "heapq.nsmallest", "heapq.nlargest"}
_HANDS_ON = {f"builtins.{name}" for name in ("list", "tuple", "enumerate", "zip", "map", "filter", "iter", "reversed")}
_TAKES = {"builtins.next", "builtins.str", "builtins.repr", "collections.deque", "collections.OrderedDict"}
_TAKES |= {"functools.reduce", "builtins.format"}
_LOGS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_INTO_SET = {"update", "union", "intersection", "difference", "symmetric_difference", "issubset", "issuperset"}
_INTO_SET |= {"intersection_update", "difference_update", "symmetric_difference_update", "isdisjoint", "subtract"}
_GROWS = {"append", "extend", "insert", "appendleft", "extendleft"}
_ABOUT_LISTS = {*_GROWS, "sort", "clear", "remove", "count"}
_COMPREHENSIONS = (ast.ListComp, ast.GeneratorExp)


def set_order(code: Code, graph: Graph) -> Iterator[Problem]:
    """Find iteration over sets."""
    order = _Order(graph)
    for node in code.nodes:
        if isinstance(node, ast.expr) and is_set(graph.resolver.of(node)) and order.escapes(node):
            text = ast.unparse(node)
            what = text if len(text) <= 40 else "a set"
            yield Problem(
                node, "set-order", f"The order of {what} differs from process to process, and it matters here."
            )


class _Order:
    """Follows what has a set's order, up to where it matters or is given up."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._of = graph.resolver.of
        self._busy: set[ast.AST] = set()

    def escapes(self, node: ast.expr) -> bool:
        """Whether a set is gone over, or taken from, in a way that its order decides something."""
        parent = self._graph.parent(node)
        if isinstance(parent, ast.Call):
            return node in parent.args and self._given_set(node, parent)
        if isinstance(parent, (ast.Starred, ast.FormattedValue)):
            return self._matters(node)
        if isinstance(parent, (ast.For, ast.comprehension)):
            return parent.iter is node and self._matters(node)
        if isinstance(parent, ast.Attribute):
            call = self._graph.parent(parent)
            return parent.attr == "pop" and isinstance(call, ast.Call) and not call.args and not self._is_single(node)
        unpacked = isinstance(parent, ast.Assign) and any(
            isinstance(one, ast.Tuple) and len(one.elts) > 1 for one in parent.targets
        )
        return unpacked or isinstance(parent, ast.YieldFrom)

    def _given_set(self, node: ast.expr, call: ast.Call) -> bool:
        """A set that is an argument: most functions take it as a set."""
        name = named(self._of(call.func))
        joins = isinstance(call.func, ast.Attribute) and call.func.attr in ("join", "extend", "extendleft")
        if name in _HANDS_ON or name in _TAKES or joins or name.startswith("itertools."):
            about = name not in ("builtins.filter", "functools.reduce") or node in call.args[1:2]
            return about and not (name == "builtins.iter" and self._is_single(node)) and self._matters(node)
        return False

    def _is_single(self, node: ast.expr) -> bool:
        """Whether the code around asks if a set has one member, which is why it takes one."""
        scope, text = self._graph.resolver.owner(node), ast.unparse(node)
        return scope is not None and any(
            isinstance(one, ast.Compare)
            and ast.unparse(one.left) == f"len({text})"
            and any(isinstance(other, ast.Constant) and other.value == 1 for other in one.comparators)
            for one in scope.nodes
        )

    def _matters(self, node: ast.AST) -> bool:
        """Whether the order of what this node gives decides something."""
        if node in self._busy:
            return False
        self._busy.add(node)
        try:
            return self._in(node, self._graph.parent(node))
        finally:
            self._busy.discard(node)

    def _in(self, node: ast.AST, parent: ast.AST | None) -> bool:
        if isinstance(parent, ast.Call):
            return self._in_call(parent)
        if isinstance(parent, ast.keyword):
            return parent.arg != "reason" and self._matters(parent)
        if isinstance(parent, ast.comprehension):
            return self._in_comprehension(parent)
        if isinstance(parent, ast.For):
            return self._in_loop(parent)
        if isinstance(parent, ast.FormattedValue):
            text = self._graph.parent(parent)
            return text is not None and self._matters(text)
        if isinstance(parent, ast.Return):
            return self._returned(node)
        if isinstance(parent, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)):
            return self._assigned(parent)
        if isinstance(parent, ast.Compare):
            return not all(isinstance(op, (ast.In, ast.NotIn)) for op in parent.ops)  # codespell:ignore notin
        if isinstance(parent, (ast.Starred, ast.IfExp, ast.BoolOp, ast.BinOp, ast.List, ast.Tuple)):
            return self._matters(parent)
        harmless = (ast.Expr, ast.If, ast.While, ast.Assert, ast.UnaryOp, ast.Raise, ast.Set, ast.Delete, ast.DictComp)
        return not isinstance(parent, harmless)

    def _in_call(self, call: ast.Call) -> bool:
        name = named(self._of(call.func))
        raised = isinstance(self._graph.parent(call), ast.Raise)
        if raised or name in _NO_MATTER or name.endswith(("Error", "Exception")):
            return False
        if name in _HANDS_ON or name.startswith("itertools."):
            return self._matters(call)
        if isinstance(call.func, ast.Attribute):
            if call.func.attr in _LOGS and is_logger(call.func.value, name):
                return False
            if call.func.attr in _INTO_SET:
                return False
            if call.func.attr in _GROWS and isinstance(call.func.value, ast.Name):
                return self._variable(call.func.value)
        joins = isinstance(call.func, ast.Attribute) and call.func.attr == "join"
        return self._matters(call) if joins or name in ("builtins.str", "builtins.repr") else True

    def _in_comprehension(self, part: ast.comprehension) -> bool:
        whole = self._graph.parent(part)
        return isinstance(whole, _COMPREHENSIONS) and self._matters(whole)

    def _returned(self, node: ast.AST) -> bool:
        """What a helper returns matters when it does to one of its callers."""
        scope = self._graph.resolver.owner(node)
        function = scope.module.function_of.get(scope.node) if scope else None
        if function is None or function.yields:
            return True
        sites = self._graph.sites.get(function)
        return not sites or any(self._matters(site) for site in sites)

    # ---- statements

    def _assigned(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr) -> bool:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if isinstance(node, ast.NamedExpr) and self._matters(node):
            return True
        return any(not isinstance(one, ast.Name) or self._variable(one) for one in targets)

    def _variable(self, name: ast.Name) -> bool:
        """Whether the order of a list in a variable decides something, wherever the variable is used."""
        scope = self._graph.resolver.owner(name)
        if scope is None:
            return True
        uses = [node for node in _names(scope) if node.id == name.id and isinstance(node.ctx, ast.Load)]
        parents = [(use, self._graph.parent(use)) for use in uses]
        if any(isinstance(parent, ast.Attribute) and parent.attr == "sort" for _, parent in parents):
            return False
        return any(
            self._matters(use)
            for use, parent in parents
            if not (isinstance(parent, ast.Attribute) and parent.attr in _ABOUT_LISTS)
        )

    def _in_loop(self, loop: ast.For) -> bool:
        """Whether it matters in which order a loop takes its turns."""
        scope = self._graph.resolver.owner(loop)
        inside = [node for part in loop.body for node in ast.walk(part) if _is_in(node, scope)]
        turns = {node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)}
        leaves = any(isinstance(node, ast.Break) for node in inside)
        for node in inside:
            if isinstance(node, (ast.Yield, ast.YieldFrom)):
                return True
            if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
                return True
            if isinstance(node, ast.Assign) and leaves and _mentions(node.value, turns):
                return True
            if isinstance(node, ast.AugAssign) and self._grows_text(node):
                return True
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _GROWS:
                base = node.func.value
                if not isinstance(base, ast.Name) or self._variable(base):
                    return True
        return False

    def _grows_text(self, node: ast.AugAssign) -> bool:
        if not isinstance(node.op, ast.Add) or not isinstance(node.target, ast.Name):
            return False
        scope = self._graph.resolver.owner(node)
        bindings = scope.names.get(node.target.id, []) if scope else []
        kinds = {named(self._of(one)) for one in (node.value, *(binding.value for binding in bindings)) if one}
        return bool(kinds & {"builtins.str", "builtins.list", "builtins.tuple"}) and self._variable(node.target)


def is_logger(node: ast.expr, name: str) -> bool:
    """Whether messages go to what is called here, as far as its name tells."""
    return "log" in ast.unparse(node).lower() or name.startswith("logging.")


def _names(scope: Scope) -> Iterator[ast.Name]:
    return (node for node in scope.nodes if isinstance(node, ast.Name))


def _is_in(node: ast.AST, scope: Scope | None) -> bool:
    return scope is None or scope.module.owners.get(node) is scope


def _mentions(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(one, ast.Name) and one.id in names for one in ast.walk(node))
