"""The files of a project: found by path or dotted name, read once, never imported."""

from __future__ import annotations

import ast
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from .finding import LintError
from .scopes import Module, Scope, parse_module

__all__ = ["Project", "shown"]

_NOT_OURS = {"site-packages", "dist-packages", "stepwell", "stepwell_stores"}
_SKIPPED = {"__pycache__", "node_modules", "build", "dist"}


def shown(path: Path) -> str:
    """A path as people type it: from the current directory, where it lies below it."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


class Project:
    """Every file that is read in one go.

    Args:
        roots: folders in which modules are looked for besides those of the files themselves.

    Attributes:
        owners: the scope in which each node of every file is evaluated.
    """

    def __init__(self, roots: Iterable[Path] = ()) -> None:
        self._roots = list(dict.fromkeys([*roots, Path.cwd(), Path.cwd() / "src", *_on_path()]))
        self.owners: dict[ast.AST, Scope] = {}
        self._by_path: dict[Path, Module | LintError] = {}
        self._by_name: dict[str, Module | None] = {}

    @property
    def modules(self) -> list[Module]:
        """Those that were read so far."""
        return [module for module in self._by_path.values() if isinstance(module, Module)]

    def file(self, path: Path) -> Module:
        """Read a file.

        Raises:
            LintError: it can't be read, or is no Python.
        """
        path = path.resolve()
        found = self._by_path.get(path)
        if found is None:
            root, name = _place_of(path)
            if root not in self._roots:
                self._roots.insert(0, root)
            try:
                found = _read(name, path)
                self.owners.update(found.owners)
            except LintError as error:
                found = error
            self._by_path[path] = found
        if isinstance(found, LintError):
            raise found
        return found

    def module(self, name: str) -> Module | None:
        """A module of the project by its dotted name; None for all that is installed."""
        if name not in self._by_name:
            self._by_name[name] = None
            path = self.path_of(name)
            if path is not None:
                try:
                    self._by_name[name] = self.file(path)
                except LintError:  # what can't be read is not looked into, as what is installed
                    return None
        return self._by_name[name]

    def path_of(self, name: str) -> Path | None:
        """The file of a module, if it lies in the project; a package's is its `__init__.py`."""
        parts = name.split(".")
        if not all(part.isidentifier() for part in parts):
            return None
        if parts[0] in sys.stdlib_module_names or parts[0] in _NOT_OURS:
            return None
        for root in self._roots:
            base = root.joinpath(*parts)
            for path in (base.with_suffix(".py"), base / "__init__.py"):
                if path.is_file() and not _NOT_OURS.intersection(path.parts):
                    return path
        return None

    def targets(self, text: str) -> Iterator[Path]:
        """The files that an argument stands for: a file, everything below a folder, a module, a package.

        Raises:
            LintError: there is no such thing.
        """
        path = Path(text)
        if path.is_dir():
            yield from _below(path)
            return
        if path.is_file():
            yield path
            return
        found = self.path_of(text)
        if found is None:
            raise LintError(
                f"there is no file, folder or module {text!r} in {Path.cwd()} or on Python's path; give a path, as in "
                "shop/orders.py, or a dotted name, as in shop.orders"
            )
        yield from _below(found.parent) if found.name == "__init__.py" else (found,)


def _on_path() -> Iterator[Path]:
    """Where Python finds what is not installed."""
    for entry in sys.path:
        path = Path(entry or ".").absolute()
        inside = path.is_relative_to(sys.prefix) or path.is_relative_to(sys.base_prefix)
        if path.is_dir() and not inside and not _NOT_OURS.intersection(path.parts):
            yield path


def _place_of(path: Path) -> tuple[Path, str]:
    """The folder from which a file is imported, and its dotted name there."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.py")):
        inner = path.relative_to(folder).parts[:-1]
        if not any(part in _SKIPPED or part.startswith(".") for part in inner):
            yield path


def _read(name: str, path: Path) -> Module:
    try:
        with tokenize.open(path) as file:  # which knows of coding cookies
            source = file.read()
    except OSError as error:
        raise LintError(f"{shown(path)} can't be read: {error.strerror}") from error
    except (SyntaxError, UnicodeDecodeError) as error:
        raise LintError(f"{shown(path)} is no Python: {error}; leave it out, or mend its encoding") from error
    try:
        return parse_module(name, path, source)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f"{shown(path)}:{line}" if line else shown(path)
        told = error.msg if isinstance(error, SyntaxError) else error
        raise LintError(f"{where} is no Python {sys.version_info[0]}.{sys.version_info[1]}: {told}") from error
    except RecursionError as error:
        raise LintError(f"{shown(path)} is nested too deeply to be read; leave it out") from error
