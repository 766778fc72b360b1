"""The architecture, read from the imports: floors, purity, and no way from data to code.

`FLOORS` is the layout of the engine. A module imports from the floors below it, or from its own as long as no cycle
arises; imports inside functions and under `TYPE_CHECKING` count too, since a cycle that is hidden is still one. A new
module has to be placed in the table before this file passes.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).parents[2]
ROOTS = {"stepwell": ROOT / "engine" / "stepwell", "stepwell_stores": ROOT / "stores" / "stepwell_stores"}

# Modules without their `stepwell.` prefix; a package stands for everything in it. "" is `stepwell/__init__.py`.
FLOORS = {
    # 0: every error, with a stable code
    "errors": 0,
    "failure": 0,
    "limits": 0,
    "digests": 0,
    # 1: the instruction set and what a history may hold: frozen data
    "commands": 1,
    "children": 1,
    "steps": 1,
    "transactions": 1,
    "streams": 1,
    "groups": 1,
    "command": 1,
    "decisions": 1,
    "events": 1,
    "instants": 1,
    "retry": 1,
    "composing": 1,
    "workflows": 1,
    "texts": 1,
    # 2: bytes, the store port, and what callers get back
    "codec": 2,
    "_shapes": 2,
    "_scalars": 2,
    "_problems": 2,
    "_loaders": 2,
    "_leaves": 2,
    "_native": 2,
    "_annotations": 2,
    "sealing": 2,
    "results": 2,
    "checks": 2,
    "failures": 2,
    "inputs": 2,
    "lifecycle": 2,
    "outcomes": 2,
    "streaming": 2,
    "store": 2,
    "store_outcomes": 2,
    "leases": 2,
    "heads": 2,
    "wire": 2,
    "depicting": 2,
    "differences": 2,
    "histories": 2,
    "mermaid": 2,
    "moves": 2,
    "upkeep": 2,
    "wrapped": 2,
    # 3: the sans-IO core
    "fibers": 3,
    "divergence": 3,
    "incarnations": 3,
    "machine": 3,
    "handlers": 3,
    "mailbox": 3,
    "replacing": 3,
    "scheduler": 3,
    "strictness": 3,
    # 4: what performs and records
    "": 4,
    "engine": 4,
    "keeping": 4,
    "retention": 4,
    "sweeping": 4,
    "facade": 4,
    "asking": 4,
    "telling": 4,
    "opening": 4,
    "parked": 4,
    "patches": 4,
    "sessions": 4,
    "signals": 4,
    "signal_start": 4,
    "registry": 4,
    "recorder": 4,
    "restarts": 4,
    "reading": 4,
    "queries": 4,
    "logs": 4,
    "loading": 4,
    "heartbeats": 4,
    "process_child": 4,
    "processes": 4,
    "watching": 4,
    "frontier": 4,
    "flights": 4,
    "following": 4,
    "chunks": 4,
    "run_streams": 4,
    "hub": 4,
    "driving": 4,
    "control": 4,
    "deciding": 4,
    "environment": 4,
    "loops": 4,
    "pools": 4,
    "performers": 4,
    "session": 4,
    "blocking": 4,
    "ends": 4,
    "errands": 4,
    "growth": 4,
    "kin": 4,
    "needs": 4,
    "ledger": 4,
    "abandoning": 4,
    "migrating": 4,
    "moving": 4,
    "importing": 4,
    "swapping": 4,
    "reports": 4,
    "writing": 4,
    "transacting": 4,
    # 5: programs around an engine; none imports another
    "__main__": 5,
    "board": 5,
    "bridges": 5,
    "cli": 5,
    "demo": 5,
    "schedules": 5,
    "web": 5,
    "worker": 5,
}
TOP = 5
UNPLACED = "testing"  # imports anything, and nothing imports it

# Imports that break a rule above and may, each inside a function: (importer, imported) and why.
LATE_IMPORTS = {
    ("cli", "board"): "a verb loads what it needs when it is called",
    ("cli", "demo"): "as above",
    ("cli", "schedules"): "as above",
    ("cli", "testing"): "as above: `stepwell lint` and `stepwell check` are parts of the testing kit",
    ("cli", "web"): "as above",
    ("cli", "worker"): "as above",
    ("__main__", "cli"): "`python -m stepwell` is the command line",
}
STORE_DOOR = {("open_store",), ("masked",)}
STORE_OPENER = "open_store"  # the one door to the stores: engine code imports it, late, or is a function of that name

PURE_BELOW = 4
IMPURE_MODULES = {"time", "random", "os", "socket", "threading", "sqlite3", "logging"}
IMPURE_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "open", "input", "print"}

STORES_MAY_IMPORT = {"stepwell.store", "stepwell.errors"}
DRIVERS = {"attrs", "cryptography", "msgspec", "obstore", "psycopg", "psycopg_pool", "redis"}

CODE_FROM_DATA_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "jsonpickle", "marshal", "shelve"}
CODE_FROM_DATA_CALLS = {"eval", "exec"}


@frozen
class Import:
    """One import statement's target, as a module that exists, or as the name that was written."""

    importer: str
    imported: str
    line: int
    function: str | None  # the function that holds it, None at module level
    names: tuple[str, ...] = ()  # what `from imported import ...` takes

    def __str__(self) -> str:
        where = f" in {self.function}()" if self.function else ""
        return f"{self.importer}:{self.line}{where} imports {self.imported}"


def modules() -> dict[str, Path]:
    """Every module of both packages, by dotted name."""
    found = {}
    for package, folder in ROOTS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def walk(node: ast.AST, function: str | None = None) -> Iterator[tuple[ast.AST, str | None]]:
    """Every node below `node`, with the outermost function that holds it."""
    for child in ast.iter_child_nodes(node):
        inside = function
        if function is None and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside = child.name
        yield child, inside
        yield from walk(child, inside)


def imports_of(name: str) -> Iterator[Import]:
    """Every import of a module, also by `importlib.import_module("...")`."""
    path = MODULES[name]
    names: tuple[str, ...]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node, function in walk(ast.parse(path.read_text("utf-8"))):
        names = ()
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            names = tuple(alias.name for alias in node.names)
            full = [f"{base}.{one}" for one in names]
            targets = [one if one in MODULES else base for one in full]
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            targets = [literal_start(node.args[0])] if node.args else []
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(name, target, node.lineno, function, names)


def literal_start(node: ast.expr) -> str:
    """The text with which a string expression begins: of a literal, or of an f-string's first part."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "?"


def opens_a_store(found: Import) -> bool:
    """Whether an import inside a function is the door to the stores."""
    return found.function is not None and (
        found.function == STORE_OPENER or found.names in ((STORE_OPENER,), ("masked",))
    )


def called(node: ast.Call) -> str:
    """The last name of what is called: `now` of `datetime.now()`."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def is_in(module: str, package: str) -> bool:
    """Whether `module` is `package` or lies in it."""
    return module == package or module.startswith(package + ".")


def place(module: str) -> str | None:
    """The entry of `FLOORS` that a module of the engine belongs to; None when it has none."""
    inner = module.removeprefix("stepwell").removeprefix(".")
    if not inner or inner in FLOORS:
        return inner
    unit = inner.partition(".")[0]
    return unit if unit in FLOORS or unit == UNPLACED else None


ENGINE = [name for name in MODULES if is_in(name, "stepwell") and place(name) != UNPLACED]
STORES = [name for name in MODULES if is_in(name, "stepwell_stores")]


def floor(module: str) -> int:
    """The floor of a module of the engine; above all others when it has no place."""
    at = place(module)
    return TOP + 1 if at is None else FLOORS.get(at, TOP + 1)


def test_there_is_something_to_check() -> None:
    assert "stepwell.errors" in ENGINE
    assert STORES


@pytest.mark.parametrize("name", ENGINE)
def test_every_module_has_a_floor(name: str) -> None:
    assert place(name) is not None, (
        f"{name} has no floor: place it in FLOORS of tests/project/test_layers.py, on the lowest floor that lies above "
        "all that it imports"
    )


@pytest.mark.parametrize("name", ENGINE)
def test_a_module_imports_only_from_its_own_floor_and_those_below(name: str) -> None:
    wrong = []
    for found in imports_of(name):
        if not is_in(found.imported, "stepwell") or place(found.imported) == place(name):
            continue
        late = found.function is not None and (place(name), place(found.imported)) in LATE_IMPORTS
        siblings = floor(name) == TOP == floor(found.imported)
        if (floor(found.imported) > floor(name) or siblings) and not late:
            wrong.append(f"{found} (floor {floor(found.imported)}; {name} is on floor {floor(name)})")
    assert [] == wrong


@pytest.mark.parametrize("name", [*ENGINE, *STORES])
def test_nothing_imports_the_testing_kit(name: str) -> None:
    late = (place(name), UNPLACED) in LATE_IMPORTS
    wrong = [
        str(found)
        for found in imports_of(name)
        if is_in(found.imported, "stepwell.testing") and not (late and found.function)
    ]
    assert [] == wrong


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_imports_a_store_only_where_a_url_is_opened(name: str) -> None:
    wrong = [
        str(found)
        for found in imports_of(name)
        if is_in(found.imported, "stepwell_stores") and not opens_a_store(found)
    ]
    assert [] == wrong


@pytest.mark.parametrize("name", STORES)
def test_a_store_knows_the_port_and_its_errors_only(name: str) -> None:
    wrong = [
        str(found)
        for found in imports_of(name)
        if is_in(found.imported, "stepwell") and found.imported not in STORES_MAY_IMPORT
    ]
    assert [] == wrong


@pytest.mark.parametrize("name", STORES)
def test_a_store_knows_no_other_store(name: str) -> None:
    """What two share lies beside their packages; the door imports them when a URL asks for one."""
    packages = {one.split(".")[1] for one in STORES if one.count(".") > 1}
    own = next((one for one in packages if is_in(name, f"stepwell_stores.{one}")), None)
    wrong = [
        str(found)
        for found in imports_of(name)
        if any(is_in(found.imported, f"stepwell_stores.{other}") for other in packages - {own})
        and (own or found.function is None)
    ]
    assert [] == wrong


@pytest.mark.parametrize("name", STORES)
def test_a_store_brings_no_library_but_its_driver(name: str) -> None:
    allowed = sys.stdlib_module_names | DRIVERS | {"stepwell", "stepwell_stores"}
    wrong = [str(found) for found in imports_of(name) if found.imported.partition(".")[0] not in allowed]
    assert [] == wrong


@pytest.mark.parametrize("name", [name for name in ENGINE if floor(name) != 2])
def test_only_the_codec_knows_cattrs(name: str) -> None:
    wrong = [str(found) for found in imports_of(name) if is_in(found.imported, "cattrs")]
    assert [] == wrong


@pytest.mark.parametrize("name", [name for name in ENGINE if floor(name) < PURE_BELOW])
def test_the_core_has_no_clock_chance_thread_or_file(name: str) -> None:
    wrong = [str(found) for found in imports_of(name) if found.imported.partition(".")[0] in IMPURE_MODULES]
    for node, _ in walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.Call) and called(node) in IMPURE_CALLS:
            wrong.append(f"{name}:{node.lineno} calls {called(node)}()")
    assert [] == wrong


@pytest.mark.parametrize("name", MODULES)
def test_bytes_never_become_code(name: str) -> None:
    wrong = [str(found) for found in imports_of(name) if found.imported.partition(".")[0] in CODE_FROM_DATA_MODULES]
    for node, _ in walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        plain = isinstance(node.func, ast.Name) or ast.unparse(node.func).startswith("builtins.")
        if (plain and called(node) in CODE_FROM_DATA_CALLS) or ast.unparse(node.func) == "yaml.load":
            wrong.append(f"{name}:{node.lineno} calls {ast.unparse(node.func)}()")
    assert [] == wrong


def test_imports_have_no_cycle_even_inside_functions() -> None:
    graph: dict[str, list[str]] = {}
    for name in MODULES:
        graph[name] = [
            found.imported
            for found in imports_of(name)
            if found.imported in MODULES
            and found.imported != name
            and not opens_a_store(found)
            and not (found.function and (place(name), place(found.imported)) in LATE_IMPORTS)
        ]
    assert None is cycle_in(graph)


def cycle_in(graph: dict[str, list[str]]) -> str | None:
    """A cycle as `a -> b -> a`, or None."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> str | None:
        if name in path:
            return " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return None
        for other in graph[name]:
            found = visit(other, (*path, name))
            if found:
                return found
        done.add(name)
        return None

    return next(filter(None, (visit(name, ()) for name in graph)), None)


def test_a_cycle_is_found() -> None:
    assert "b -> c -> b" == cycle_in({"a": ["b"], "b": ["c"], "c": ["b"]})
    assert cycle_in({"a": ["b", "c"], "b": ["c"], "c": []}) is None
