"""The workflows that an engine knows, by name and version. No globals: each engine has its own. Floor 4."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from inspect import isfunction
from types import CodeType
from typing import Any

from .digests import blake2b, digest
from .errors import InvalidInputError, NotFoundError, VersionMismatchError
from .store import RunHead
from .workflows import Workflow, check_workflow

__all__ = ["Registry", "fingerprint", "known_workflow", "may_ask"]


class Registry:
    """Workflows by name and version.

    Raises:
        InvalidInputError: something is no workflow, or two have one name and version.
    """

    def __init__(self, workflows: Iterable[Workflow[..., Any]]) -> None:
        self._by_name: dict[str, dict[str, Workflow[..., Any]]] = {}
        for workflow in workflows:
            self.add(workflow)

    def add(self, workflow: Workflow[..., Any]) -> None:
        """Make a workflow known; the same one twice is fine."""
        check_workflow(workflow)
        versions = self._by_name.setdefault(workflow.name, {})
        known = versions.setdefault(workflow.version, workflow)
        if known != workflow:  # the same object, or `durable` of the same callable
            raise InvalidInputError(
                f"two workflows are named {workflow.name!r} in version {workflow.version!r}: "
                f"{known.fn.__module__}.{known.fn.__qualname__} and {workflow.fn.__module__}.{workflow.fn.__qualname__}"
            )

    def find(self, name: str, version: str) -> Workflow[..., Any]:
        """Give the workflow of a recorded name and version.

        Raises:
            NotFoundError: no workflow of that name.
            VersionMismatchError: the name is known, in other versions.
        """
        versions = self._by_name.get(name)
        if versions is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise NotFoundError(
                f"this engine knows no workflow {name!r} (it knows: {known}); add it to workflows=[...]"
            )
        if version not in versions:
            has = ", ".join(sorted(versions))
            raise VersionMismatchError(
                f"workflow {name!r}: the run is on version {version!r}, and this engine has {has}; "
                "keep the old version in workflows=[...] until its runs are closed"
            )
        return versions[version]

    def knows(self, name: str, version: str) -> bool:
        """Whether that workflow is there in that version."""
        return version in self._by_name.get(name, {})

    def named(self, name: str) -> Workflow[..., Any]:
        """Give the workflow of a name, the version that was registered last.

        Raises:
            NotFoundError: no workflow of that name.
        """
        versions = self._by_name.get(name)
        if not versions:
            return self.find(name, "")
        return list(versions.values())[-1]

    def versions(self, name: str) -> list[Workflow[..., Any]]:
        """The versions of a name that are known."""
        return list(self._by_name.get(name, {}).values())

    def all(self) -> list[Workflow[..., Any]]:
        """Every workflow, in each of its versions."""
        return [w for name in list(self._by_name) for w in self.versions(name)]

    def with_ttl(self) -> list[Workflow[..., Any]]:
        """The workflows whose closed runs are not kept for ever."""
        return [w for w in self.all() if w.ttl is not None]

    def fingerprint(self) -> str:
        """Of the set of names and versions: a run blocked for want of its workflow is tried again when this changes."""
        names = sorted(
            f"{w.name}\0{w.version}" for versions in list(self._by_name.values()) for w in list(versions.values())
        )
        return digest("\n".join(names).encode())

    def fingerprints(self) -> frozenset[str]:
        """Of every workflow's code, and of the set."""
        workflows = [w for versions in list(self._by_name.values()) for w in list(versions.values())]
        return frozenset({self.fingerprint(), *(fingerprint(w) for w in workflows)})


def known_workflow(registry: Registry, head: RunHead) -> Workflow[..., Any] | None:
    """The workflow of a run, None when this engine has it not."""
    if registry.knows(head.head.workflow, head.head.version):
        return registry.find(head.head.workflow, head.head.version)
    return None


def fingerprint(workflow: Workflow[..., Any]) -> str:
    """32 hex digits that change when the code of the workflow, or of the module that it is in, changes.

    A blocked run is tried again when this changes. The module counts, because helper generators live there.
    """
    known: str | None = workflow.__dict__.get("_fingerprint")
    if known is None:
        hashed = blake2b(f"{workflow.name}\0{workflow.version}".encode(), digest_size=16)
        for source in map(_source, workflow.sources):
            if hasattr(source, "__code__"):
                _add_code(hashed, source.__code__)
            module = inspect.getmodule(source)
            with suppress(OSError, TypeError):  # typed at a prompt: the byte code alone has to do
                hashed.update(inspect.getsource(module).encode("utf-8", "surrogatepass") if module else b"")
        known = hashed.hexdigest()
        object.__setattr__(workflow, "_fingerprint", known)
    return known


def _source(fn: Any) -> Any:
    """The function behind partials and methods."""
    while True:
        inner = getattr(fn, "func", None) if isinstance(fn, partial) else getattr(fn, "__func__", None)
        if inner is None:
            return fn
        fn = inner


def may_ask(workflow: Workflow[..., Any]) -> bool:
    """Whether the code of a workflow speaks of Patched: its own, or that of its module."""
    known: bool | None = workflow.__dict__.get("_may_ask")
    if known is None:
        names = getattr(workflow.fn, "__globals__", {})
        known = "Patched" in names or _speaks_of("Patched", workflow.fn.__code__)
        known = known or any(_speaks_of("Patched", one.__code__) for one in list(names.values()) if isfunction(one))
        object.__setattr__(workflow, "_may_ask", known)
    return known


def _speaks_of(name: str, code: CodeType) -> bool:
    return name in code.co_names or any(_speaks_of(name, one) for one in code.co_consts if isinstance(one, CodeType))


def _add_code(hashed: Any, code: CodeType) -> None:
    hashed.update(code.co_code)
    hashed.update(repr(code.co_names).encode())
    for const in code.co_consts:
        if isinstance(const, CodeType):
            _add_code(hashed, const)
        else:
            hashed.update(repr(const).encode("utf-8", "surrogatepass"))
