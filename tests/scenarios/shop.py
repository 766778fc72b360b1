"""Steps of the scenarios; none of them is ever called."""

from __future__ import annotations

__all__ = ["add_one", "charge", "check", "fetch", "hello", "save", "ship"]


def hello(name: str) -> str: ...  # type: ignore[empty-body]
def fetch(number: int) -> int: ...  # type: ignore[empty-body]
def add_one(number: int) -> int: ...  # type: ignore[empty-body]
def charge(cents: int) -> str: ...  # type: ignore[empty-body]
def ship(what: str) -> str: ...  # type: ignore[empty-body]
def save(what: str) -> None: ...
def check(state: int) -> int: ...  # type: ignore[empty-body]
