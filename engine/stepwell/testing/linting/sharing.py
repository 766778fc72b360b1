"""What changes beside the workflow: globals, class attributes, variables of enclosing functions, default arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .project import shown
from .reach import Code, Graph, Problem
from .scopes import Binding, Class, Function, Module, Scope
from .things import Instance, named

__all__ = ["CHANGES", "Changes", "sharing"]

_CONTAINERS = {f"builtins.{name}" for name in ("list", "dict", "set", "bytearray")}
_CONTAINERS |= {f"collections.{name}" for name in ("defaultdict", "Counter", "deque", "OrderedDict")}
_CONTAINERS |= {"typing.List", "typing.Dict", "typing.Set", "unordered"}
_CHANGES_LISTS = {"append", "extend", "insert", "appendleft", "extendleft", "setdefault", "popitem", "popleft"}
CHANGES = {*_CHANGES_LISTS, "add", "update", "pop", "remove", "discard", "clear", "sort", "reverse", "rotate"}
CHANGES |= {"subtract", "difference_update", "intersection_update", "symmetric_difference_update", "__setitem__"}


def sharing(code: Code, graph: Graph, changes: Changes) -> Iterator[Problem]:
    """Find changes of what outlives the run, and reads of what others change."""
    changed: set[str] = set()
    for node, root in _changed_in(code.function.scope, graph):
        binding, owner = _outer(root, graph)
        if owner is not None and not _is_reached(owner, graph):
            changed.add(root.id)
            yield Problem(node, "global", f"{root.id} outlives the run, and this changes it again at every replay.")
        elif binding is not None and binding.kind == "param" and owner is None:
            if _has_shared_default(binding, root, graph):
                yield Problem(
                    node, "global", f"The default of {root.id} is one object for all calls, and this changes it."
                )
            elif given := _outlives_when_given(binding, code.function, graph):
                yield Problem(node, "global", f"This changes {given}, which outlives the run, again at every replay.")
    for node in code.nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in changed:
            yield from _read(node, graph, changes)


def _outlives_when_given(binding: Binding, function: Function, graph: Graph) -> str:
    """What a caller gives for a parameter, when that is there before the run and after it; "" when it is not."""
    if isinstance(function.node, ast.Lambda):
        return ""
    names = [one.arg for one in (*function.node.args.posonlyargs, *function.node.args.args)]
    name = getattr(binding.node, "arg", "")
    for call in graph.sites.get(function, ()):
        is_method = function.owner is not None and isinstance(call.func, ast.Attribute)
        if function.owner is not None and not is_method:
            continue  # a constructor, whose self is new
        given = dict(zip(names[is_method:], call.args, strict=False))
        given |= {one.arg: one.value for one in call.keywords if one.arg}
        if isinstance(call.func, ast.Attribute) and is_method:
            given[names[0]] = call.func.value
        value = given.get(name)
        root = _root(value) if value is not None else None
        owner = _outer(root, graph)[1] if root is not None else None
        if owner is not None and root is not None and not _is_reached(owner, graph):
            return root.id
    return ""


def _read(node: ast.Name, graph: Graph, changes: Changes) -> Iterator[Problem]:
    binding, owner = _outer(node, graph)
    if binding is None or owner is None or _is_reached(owner, graph):
        return
    parent = graph.parent(node)
    inner = parent.attr if isinstance(parent, ast.Attribute) else ""
    for scope, name in _meant(binding, owner, node.id, inner, graph):
        if where := changes.of(scope, name):
            told = name or node.id
            yield Problem(
                node, "global", f"{told} is changed while runs go on ({where}): a replay may meet another value."
            )
            return


def _meant(binding: Binding, owner: Scope, name: str, inner: str, graph: Graph) -> Iterator[tuple[Scope, str]]:
    """What a name, with the attribute next to it, can be about: a variable of a scope, or an attribute of one."""
    if binding.kind == "import":
        found = graph.resolver.imported(binding.target)
        home, _, last = binding.target.rpartition(".")
        module = graph.resolver.project.module(home) if home else None
        if isinstance(found, Module):  # `settings.LIMIT`
            if inner:
                yield found.scope, inner
            return
        if module is None or isinstance(found, Function):
            return
        if not isinstance(found, Class):
            yield from ((module.scope, one) for one in ((last, f"{last}.{inner}") if inner else (last,)))
            return
        binding = Binding("class", binding.node, thing=found)
    if isinstance(binding.thing, Class):
        if inner:
            yield binding.thing.scope, inner
    elif binding.kind != "def":
        yield owner, name
        if inner:
            yield owner, f"{name}.{inner}"


def _outer(node: ast.Name, graph: Graph, depth: int = 0) -> tuple[Binding | None, Scope | None]:
    """What binds a name, and the scope that has it when that is not the function's own."""
    scope = graph.resolver.owner(node)
    if scope is None:
        return None, None
    if scope.outer.get(node.id) == "global":
        found = scope.module.scope.names.get(node.id)
        return (found[-1] if found else None), scope.module.scope
    binding, owner = graph.resolver.lookup(node.id, scope, node)
    value = binding.value if binding is not None and binding.kind == "assign" and owner is scope else None
    if isinstance(value, ast.Name) and value.id != node.id and depth < 10:
        return _outer(value, graph, depth + 1)  # another name for it
    return binding, None if owner is scope else owner


def _is_reached(scope: Scope, graph: Graph) -> bool:
    """Whether a scope is workflow code itself, whose variables begin anew with each run."""
    at: Scope | None = scope
    while at is not None and isinstance(at.node, ast.Lambda):
        at = at.parent
    function = at.module.function_of.get(at.node) if at is not None else None
    return function is not None and function in graph.codes


def _has_shared_default(binding: Binding, node: ast.Name, graph: Graph) -> bool:
    scope = graph.resolver.owner(node)
    arguments = getattr(scope.node, "args", None) if scope is not None else None
    if scope is None or not isinstance(arguments, ast.arguments) or len(scope.names.get(node.id, ())) > 1:
        return False
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: dict[ast.arg, ast.expr | None] = dict(
        zip(positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True)
    )
    defaults |= dict(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    default = defaults.get(binding.node) if isinstance(binding.node, ast.arg) else None
    return default is not None and named(graph.resolver.of(default)) in _CONTAINERS


def _changed_in(scope: Scope, graph: Graph) -> Iterator[tuple[ast.AST, ast.Name]]:
    """What changes something in a scope, and the name through which it does."""
    for node in scope.nodes:
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            root = _root(node)
            if root is not None and (root is not node or root.id in scope.outer):
                yield node, root
        elif isinstance(node, ast.Call):
            root = _changed_by_call(node, graph)
            if root is not None:
                yield node, root


def _changed_by_call(node: ast.Call, graph: Graph) -> ast.Name | None:
    """The name whose value a call changes: `seen.append(x)`, `next(numbers)`."""
    if isinstance(node.func, ast.Name) and node.func.id == "next" and node.args:
        first = node.args[0]
        return first if isinstance(first, ast.Name) else None
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in CHANGES:
        return None
    base = graph.resolver.of(node.func.value)
    known = isinstance(base, Instance) and named(base) in _CONTAINERS
    unknown = base is None and node.func.attr in _CHANGES_LISTS
    return _root(node.func.value) if known or unknown else None


def _root(node: ast.expr) -> ast.Name | None:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node if isinstance(node, ast.Name) else None


class Changes:
    """Which names of modules, classes and enclosing functions are changed inside of functions, and where first."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._seen: set[str] = set()
        self._places: dict[tuple[int, str], str] = {}

    def of(self, scope: Scope, name: str) -> str:
        """Where a name of a scope is changed, as `file:line`; "" when nobody does."""
        for module in self._graph.resolver.project.modules:
            if str(module.path) not in self._seen:
                self._seen.add(str(module.path))
                self._look_through(module)
        return self._places.get((id(scope), name), "")

    def _look_through(self, module: Module) -> None:
        for function in module.functions:
            for node, root in _changed_in(function.scope, self._graph):
                binding, owner = _outer(root, self._graph)
                if binding is None or owner is None:
                    continue
                parent = self._graph.parent(root)
                inner = parent.attr if isinstance(parent, ast.Attribute) and not _is_call(parent, self._graph) else ""
                for scope, name in list(_meant(binding, owner, root.id, inner, self._graph))[-1:]:
                    place = f"{shown(module.path)}:{getattr(node, 'lineno', 0)}"
                    self._places.setdefault((id(scope), name), place)


def _is_call(node: ast.AST, graph: Graph) -> bool:
    parent = graph.parent(node)
    return isinstance(parent, ast.Call) and parent.func is node
