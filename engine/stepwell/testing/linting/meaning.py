"""What an expression means, as far as the text tells: a resolver from names, through imports, aliases and annotations.

It never guesses: what it can't tell is None, and no rule speaks of it.
"""

from __future__ import annotations

import ast
import builtins
from typing import Any

from .project import Project
from .scopes import Binding, Class, Function, Module, Scope, position
from .things import COMMANDS, SETS, External, Instance, Maker, is_command, is_set, named, of_type

__all__ = ["Resolver"]

_HOMES = {"stepwell", *(f"stepwell.{name}" for name in ("commands", "command", "steps", "groups", "children"))}
_HOMES |= {f"stepwell.{name}" for name in ("streams", "transactions", "workflows", "engine", "logs", "composing")}
_SET_METHODS = {"union", "intersection", "difference", "symmetric_difference", "copy"}
_OPTIONALS = {"typing.Optional", "typing.Annotated", "typing.Final", "typing.Required", "typing.ClassVar"}
_FLOWS = {"stepwell.Flow", "typing.Generator", "collections.abc.Generator"}
_TRANSPARENT = {"functools.wraps", "stepwell.workflow", "stepwell.step", "functools.cache", "functools.lru_cache"}
_TRANSPARENT |= {"builtins.staticmethod", "builtins.classmethod", "typing.no_type_check", "typing.override"}
_TYPED = (
    ((ast.Set, ast.SetComp), "builtins.set"),
    ((ast.List, ast.ListComp), "builtins.list"),
    ((ast.Dict,), "builtins.dict"),
    ((ast.Tuple,), "builtins.tuple"),
    ((ast.JoinedStr,), "builtins.str"),
    ((ast.Compare,), "builtins.bool"),
    ((ast.GeneratorExp,), "types.GeneratorType"),
)


class Resolver:
    """Tells what expressions mean. It remembers, so one of them serves for all of a project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._known: dict[ast.AST, Any] = {}
        self._busy: set[int] = set()

    # ---- names

    def lookup(self, name: str, scope: Scope, use: ast.AST | None) -> tuple[Binding | None, Scope | None]:
        """What binds a name where it is used, and the scope that has it; (None, None) for what nobody binds."""
        first = scope
        at: Scope | None = scope
        while at is not None:
            hidden = at is not first and isinstance(at.node, ast.ClassDef)
            if not hidden and name in at.names and name not in at.outer:
                found = _choose(at.names[name], use if at is first else None, use)
                if found is not None:
                    return found, at
            at = first.module.scope if first.outer.get(name) == "global" and at is first else at.parent
        return None, None

    def name(self, name: str, scope: Scope, use: ast.AST | None = None) -> Any:
        """What a name means."""
        binding, owner = self.lookup(name, scope, use)
        if binding is not None and owner is not None:
            return self._bound(binding, owner, name)
        for star in scope.module.scope.stars:
            found = self.imported(f"{star}.{name}")
            if not isinstance(found, External) or (star == "stepwell" and name in COMMANDS | {"Flow", "workflow"}):
                return found
        return External(f"builtins.{name}") if hasattr(builtins, name) else None

    def imported(self, target: str) -> Any:
        """What a dotted name means: a module of the project, something in one, or an external thing."""
        module = self.project.module(target)
        if module is not None:
            return module
        home, _, last = target.rpartition(".")
        if home:
            outer = self.project.module(home)
            if outer is not None:
                return self._once(f"{target}", lambda: self.name(last, outer.scope))
            if home in _HOMES:
                return External(f"stepwell.{last}")
        return External(target)

    def _bound(self, binding: Binding, owner: Scope, name: str) -> Any:
        if binding.kind == "import":
            return self.imported(binding.target)
        if binding.thing is not None:
            return binding.thing
        if binding.kind == "param":
            return self._parameter(binding, owner)
        if binding.kind == "element":
            return self._element(self.of(binding.value, owner))
        if binding.kind in ("assign", "with"):
            said = self.annotated(binding.annotation, owner) if binding.annotation is not None else None
            found = self.of(binding.value, owner) if binding.value is not None else None
            if is_set(found) and _is_sorted_later(name, owner):
                return of_type("builtins.list")
            return said if isinstance(said, Instance) and not is_set(found) else found
        return None

    def _parameter(self, binding: Binding, owner: Scope) -> Any:
        if binding.annotation is not None:
            return self.annotated(binding.annotation, owner.parent or owner)
        function = owner.module.function_of.get(owner.node)
        if function is not None and function.owner is not None and not isinstance(function.node, ast.Lambda):
            arguments = function.node.args
            first = next(iter([*arguments.posonlyargs, *arguments.args]), None)
            if first is not None and first is binding.node:
                return function.owner if first.arg == "cls" else Instance(function.owner)
        return None

    def _element(self, thing: Any) -> Any:
        return thing.args[0] if isinstance(thing, Instance) and thing.args and not is_command(thing) else None

    # ---- expressions

    def of(self, node: ast.AST | None, scope: Scope | None = None) -> Any:
        """What an expression means where it stands; None when that can't be told.

        Returns:
            A Module, Class or Function of the project; External; Instance; Maker; or None.
        """
        if node is None:
            return None
        if node not in self._known:
            if id(node) in self._busy or len(self._busy) > _DEEP:
                return None
            self._busy.add(id(node))
            try:
                where = scope or self.owner(node)
                self._known[node] = None if where is None else self._meaning(node, where)
            finally:
                self._busy.discard(id(node))
        return self._known[node]

    def owner(self, node: ast.AST) -> Scope | None:
        """The scope in which a node is evaluated."""
        return self.project.owners.get(node)

    def _once(self, key: str, tell: Any) -> Any:
        """Guards against modules that import from each other in a circle."""
        if hash(key) in self._busy:
            return None
        self._busy.add(hash(key))
        try:
            return tell()
        finally:
            self._busy.discard(hash(key))

    def _meaning(self, node: ast.AST, scope: Scope) -> Any:
        if isinstance(node, ast.Name):
            return self.name(node.id, scope, node)
        if isinstance(node, ast.Attribute):
            return self.attribute(self.of(node.value, scope), node.attr)
        if isinstance(node, ast.Call):
            return self.called(node, scope)
        if isinstance(node, ast.Constant):
            return of_type(f"builtins.{type(node.value).__name__}")
        if isinstance(node, ast.NamedExpr):
            return self.of(node.value, scope)
        if isinstance(node, ast.Lambda):
            return scope.module.function_of.get(node)
        if isinstance(node, ast.BinOp):
            return self._operation(node, scope)
        if isinstance(node, (ast.IfExp, ast.BoolOp)):
            return self._choice([node.body, node.orelse] if isinstance(node, ast.IfExp) else node.values, scope)
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            return self._answer(self.of(node.value, scope), scope)
        if isinstance(node, ast.DictComp) and any(is_set(self.of(part.iter, scope)) for part in node.generators):
            return of_type("unordered")
        if isinstance(node, ast.Subscript):
            return self._item(self.of(node.value, scope))
        return next((of_type(name) for kinds, name in _TYPED if isinstance(node, kinds)), None)

    def attribute(self, base: Any, name: str) -> Any:
        """What an attribute of something means."""
        if isinstance(base, Module):
            found = self.project.module(f"{base.name}.{name}") if base.is_package else None
            return found or self.name(name, base.scope)
        if isinstance(base, External):
            return self.imported(f"{base.name}.{name}")
        if isinstance(base, Class):
            return self._member(base, name)
        if isinstance(base, Instance):
            if isinstance(base.cls, Class):
                return self._of_object(base.cls, name)
            if named(base) == "pathlib.Path" and name in ("parent", "absolute"):
                return base
            return External(f"{named(base)}.{name}") if named(base) else None
        return None

    def _member(self, cls: Class, name: str, depth: int = 0) -> Any:
        """What a class has by a name, of itself or of its bases in the project."""
        if name in cls.scope.names:
            return self._bound(cls.scope.names[name][-1], cls.scope, name)
        for base in cls.node.bases:
            parent = self.of(base)
            if isinstance(parent, Class) and depth < 20:
                found = self._member(parent, name, depth + 1)
                if found is not None:
                    return found
        return None

    def _of_object(self, cls: Class, name: str) -> Any:
        found = self._member(cls, name)
        if isinstance(found, Function) and any(self._is_property(one) for one in found.decorators):
            return self.result(found)
        return found

    def _is_property(self, decorator: ast.expr) -> bool:
        return named(self.of(decorator)) in ("builtins.property", "functools.cached_property")

    def property_of(self, base: Any, name: str) -> Function | None:
        """The function that runs when an attribute of this is read."""
        if isinstance(base, Instance) and isinstance(base.cls, Class):
            found = self._member(base.cls, name)
            if isinstance(found, Function) and any(self._is_property(one) for one in found.decorators):
                return found
        return None

    def _operation(self, node: ast.BinOp, scope: Scope) -> Any:
        left, right = self.of(node.left, scope), self.of(node.right, scope)
        of_sets = any(is_set(one) or named(one) == "dict_keys" for one in (left, right))
        if of_sets and isinstance(node.op, (ast.BitOr, ast.BitAnd, ast.BitXor, ast.Sub)):
            return of_type("builtins.set")
        if isinstance(node.op, ast.Div) and named(left) == "pathlib.Path":
            return left
        if isinstance(node.op, ast.Mod) and named(left) == "builtins.str":
            return left
        return left if isinstance(left, Instance) and left == right else None

    def _choice(self, parts: list[ast.expr], scope: Scope) -> Any:
        found = [self.of(part, scope) for part in parts]
        known = next((one for one in found if is_set(one)), None)
        return known if known is not None else found[0] if all(one == found[0] for one in found) else None

    def _item(self, base: Any) -> Any:
        if isinstance(base, Instance) and base.args and named(base) not in SETS:
            return base.args[-1]
        return None

    # ---- calls

    def called(self, node: ast.Call, scope: Scope) -> Any:
        """What a call gives."""
        function = self.of(node.func, scope)
        if isinstance(function, Class):
            return Instance(function)
        if isinstance(function, Function):
            return self.result(function)
        if isinstance(function, Instance) and isinstance(function.cls, Class):
            method = self._member(function.cls, "__call__")
            return self.result(method) if isinstance(method, Function) else None
        return self._external_call(node, named(function), scope)

    def _external_call(self, node: ast.Call, name: str, scope: Scope) -> Any:
        home, _, last = name.rpartition(".")
        first = self.of(node.args[0], scope) if node.args else None
        if home == "stepwell" and last in COMMANDS:
            return of_type(name, node)
        if home.startswith("stepwell.") and last in ("options", "decided"):
            return self.of(node.func.value, scope) if isinstance(node.func, ast.Attribute) else None
        if name == "stepwell.workflow":
            return first
        if name in ("functools.partial", "typing.cast") and node.args:
            return first if last == "partial" else self.annotated(node.args[0], scope)
        if home in SETS and last in _SET_METHODS:
            return of_type("builtins.set")
        if name == "builtins.dict.fromkeys":
            return of_type("unordered") if is_set(first) else of_type("builtins.dict")
        if last == "keys" and isinstance(node.func, ast.Attribute) and not node.args:
            return of_type("dict_keys")
        if name == "builtins.sorted":
            return of_type("builtins.list")
        if name == "builtins.open":
            return of_type("io.TextIOWrapper")
        if name in ("pathlib.Path.absolute", "pathlib.Path.resolve"):
            return of_type("pathlib.Path")
        is_class = last[:1].isupper() or (home == "builtins" and isinstance(getattr(builtins, last, None), type))
        if name == "stepwell.Signal" and len(node.args) == 2:
            return of_type(name, self.annotated(node.args[1], scope))
        return of_type(name) if is_class else None

    def result(self, function: Function) -> Any:
        """What a call of a function of the project gives."""
        if isinstance(function.node, ast.AsyncFunctionDef):
            return None
        if not all(self._is_transparent(one) for one in function.decorators):
            return None
        if function.yields:
            return Maker(function)
        said = self.returned(function)
        if named(said) in _FLOWS:
            return Maker()
        if said is not None:
            return said
        if isinstance(function.node, ast.Lambda):
            return self.of(function.node.body, function.scope)
        given = [node.value for node in function.scope.nodes if isinstance(node, ast.Return)]
        if all(value is None for value in given):
            return of_type("builtins.NoneType")
        found = [self.of(value, function.scope) for value in given]
        telling = next((one for one in found if is_command(one) or isinstance(one, Maker)), None)
        if telling is not None:
            return telling
        if any(one is None for one in found):
            return None
        return found[0] if all(one == found[0] for one in found) else of_type("builtins.object")

    def _is_transparent(self, decorator: ast.expr) -> bool:
        """Whether a decorator leaves what a function gives as it is."""
        inner = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = named(self.of(inner))
        return name in _TRANSPARENT or name in ("builtins.property", "functools.cached_property")

    def _answer(self, asked: Any, scope: Scope) -> Any:
        """What a `yield` gives: the result of the step, the payload of the signal."""
        if isinstance(asked, Maker):
            return self._given_back(asked.function)
        call = asked.args[0] if is_command(asked) and asked.args else None
        if not isinstance(call, ast.Call):
            return None
        into = next((one.value for one in call.keywords if one.arg == "into"), None)
        if into is not None:
            return self.annotated(into, scope)
        kind = named(asked).rpartition(".")[2]
        first = self.of(call.args[0]) if call.args else None
        if kind in ("Step", "Transaction") and isinstance(first, Function):
            return self.returned(first)
        if kind == "Child":
            return self._given_back(first)
        if kind == "Suspend" and named(first) == "stepwell.Signal" and isinstance(first, Instance) and first.args:
            return first.args[0]
        return {"Now": of_type("datetime.datetime"), "Random": of_type("builtins.float")}.get(kind)

    def _given_back(self, function: Any) -> Any:
        """What a generator function gives in the end: the R of its Flow[R]."""
        said = self.returned(function) if isinstance(function, Function) else None
        return said.args[-1] if isinstance(said, Instance) and said.args else None

    # ---- annotations

    def returned(self, function: Function) -> Any:
        """What a function is said to return: an Instance, or None."""
        return self.annotated(function.returns, function.scope.parent or function.scope)

    def annotated(self, node: ast.AST | None, scope: Scope) -> Any:
        """What an annotation says: an Instance, or None."""
        if node is None or id(node) in self._busy:  # `date: date` in a class body
            return None
        self._busy.add(id(node))
        try:
            return self._annotated(node, scope)
        finally:
            self._busy.discard(id(node))

    def _annotated(self, node: ast.AST, scope: Scope) -> Any:
        if isinstance(node, ast.Constant):
            if node.value is None:
                return of_type("builtins.NoneType")
            if isinstance(node.value, str):
                try:
                    return self.annotated(ast.parse(node.value, mode="eval").body, scope)
                except SyntaxError:
                    return None
            return None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            parts = [self.annotated(one, scope) for one in (node.left, node.right)]
            kept = [one for one in parts if named(one) != "builtins.NoneType"]
            return kept[0] if len(kept) == 1 else next((one for one in kept if is_set(one)), None)
        if isinstance(node, ast.Subscript):
            return self._generic(node, scope)
        if isinstance(node, (ast.Name, ast.Attribute)):
            found = self._plain(node, scope)
            known = isinstance(found, Class) or (isinstance(found, External) and found.name not in _VAGUE)
            return Instance(found) if known else None
        return None

    def _plain(self, node: ast.AST, scope: Scope) -> Any:
        """A dotted name in an annotation, which may be text, and so belongs to no scope of its own."""
        if isinstance(node, ast.Name):
            return self.name(node.id, scope)
        return self.attribute(self._plain(node.value, scope), node.attr) if isinstance(node, ast.Attribute) else None

    def _generic(self, node: ast.Subscript, scope: Scope) -> Any:
        base = named(self.annotated(node.value, scope)) or named(self._plain(node.value, scope))
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if base in _OPTIONALS:
            return self.annotated(inner[0], scope)
        whole = self.annotated(node.value, scope)
        if not isinstance(whole, Instance):
            return None
        return Instance(whole.cls, tuple(self.annotated(one, scope) for one in inner))


_DEEP = 60  # expressions within expressions, through names and calls
_VAGUE = {"typing.Any", "builtins.object", "typing.TypeVar", "typing.Callable", "collections.abc.Callable"}


def _choose(bindings: list[Binding], use: ast.AST | None, spot: ast.AST | None) -> Binding | None:
    """The binding that a use meets: the last one before it in the same scope, else the last one of all."""
    inner = [one for one in bindings if one.within is not None and spot is not None and _holds(one.within, spot)]
    if inner:
        return inner[-1]
    rest = [one for one in bindings if one.within is None]
    if use is not None:
        before = [one for one in rest if one.since <= position(use)]
        if before:
            return max(before, key=lambda one: one.since)
    return rest[-1] if rest else None


def _holds(outer: ast.AST, inner: ast.AST) -> bool:
    end = getattr(outer, "end_lineno", 0), getattr(outer, "end_col_offset", 0)
    return position(outer) <= position(inner) <= end


def _is_sorted_later(name: str, scope: Scope) -> bool:
    """Whether a list of that name is sorted in its scope."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "sort"
        and isinstance(node.value, ast.Name)
        and node.value.id == name
        for node in scope.nodes
    )
