"""From `--store` and `--app` to an engine."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from ..codec import Codec
from ..engine import Engine
from ..errors import StepwellError, StoreMisconfiguredError
from ..loading import Parts
from ..registry import Registry
from ..store import Store
from .mistakes import AppError, UsageError

__all__ = [
    "KEYS_VARIABLE",
    "STORE_VARIABLE",
    "codec_of",
    "load_app",
    "open_engine",
    "open_store",
    "parts_of",
    "registry_of",
    "use_key_file",
]

STORE_VARIABLE = "STEPWELL_STORE"
KEYS_VARIABLE = "STEPWELL_KEYS"
KEY_FILE_VARIABLE = "STEPWELL_KEY_FILE"


def open_engine(options: argparse.Namespace, *, needs_code: bool = False, may_create: bool = False) -> Engine:
    """The engine that a verb works with; close it after use.

    Args:
        needs_code: the verb runs workflow code, so there must be an `--app`.
        may_create: a store that isn't there is made; else it is an error, and nothing is made.

    Raises:
        UsageError: neither store nor app is named, or they contradict each other.
        AppError: the app can't be loaded.
        StoreMisconfiguredError: the store is none.
    """
    url = options.store or os.environ.get(STORE_VARIABLE)
    spec = options.app
    if spec is not None:
        return _app_engine(spec, url, may_create)
    if needs_code:
        raise UsageError(
            f"{options.verb} runs workflow code: say where it is, as in --app shop.workflows:engine "
            "(MODULE:ATTRIBUTE of an Engine)"
        )
    if not url:
        raise UsageError(f"no store is named: give --store sqlite:///runs.db, or set {STORE_VARIABLE}")
    return Engine(open_store(url, must_exist=not may_create))


def open_store(url: str, *, must_exist: bool) -> Store:
    """The store of a URL."""
    from stepwell_stores import open_store as open_url  # the one door to the stores

    return open_url(url, must_exist=must_exist)


def use_key_file(options: argparse.Namespace) -> None:
    """Have the keys of `--key-file` used, by an app that takes its own from the environment as well."""
    os.environ.pop(KEYS_VARIABLE, None)  # which would come first
    os.environ[KEY_FILE_VARIABLE] = options.key_file
    url = options.store or os.environ.get(STORE_VARIABLE)
    if url and "encrypted" not in url.partition(":")[0].lower().split("+"):
        first, plus, rest = url.partition("+")  # what is encrypted can't be compressed
        options.store = f"{first}+encrypted+{rest}" if plus and first.lower() == "compressed" else f"encrypted+{url}"


def registry_of(engine: Engine) -> Registry:
    """The workflows that an engine knows."""
    return engine._parts.registry


def parts_of(engine: Engine) -> Parts:
    """What an engine works with."""
    return engine._parts


def codec_of(engine: Engine) -> Codec:
    """What an engine reads values with."""
    return engine._parts.codec


def _app_engine(spec: str, url: str | None, may_create: bool) -> Engine:
    if url:
        os.environ[STORE_VARIABLE] = url  # so that an app that reads it follows --store
    engine = load_app(spec)
    path = getattr(engine.store, "path", None)
    if url and not _same(engine.store, open_store(url, must_exist=True)):
        raise UsageError(
            f"--app {spec} keeps its runs in {path or type(engine.store).__name__}, and the store that you name is "
            f"another: leave --store and {STORE_VARIABLE} out, or let the app take its store from {STORE_VARIABLE}"
        )
    if not may_create and isinstance(path, str) and not Path(path).exists():
        raise StoreMisconfiguredError(f"no store at {path}; check the path, or start a run to make one")
    return engine


def _same(one: Store, other: Store) -> bool:
    return type(one) is type(other) and getattr(one, "path", None) == getattr(other, "path", None)


def load_app(spec: str, option: str = "--app") -> Engine:
    """The engine that `MODULE:ATTRIBUTE` names; `option` is what texts call it."""
    name, colon, attribute = spec.partition(":")
    if not name or not colon or not attribute:
        raise AppError(f"{option} takes MODULE:ATTRIBUTE, as in shop.workflows:engine, got {spec!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Any = _import(name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise AppError(f"{option} {spec}: module {name!r} has no {attribute!r}")
        found = getattr(found, part)
    if not isinstance(found, Engine):
        raise AppError(f"{option} {spec}: it is no Engine but {type(found).__name__} {found!r}")
    return found


def _import(name: str) -> Any:
    """Import the user's module; whatever goes wrong in it is told in one line."""
    try:
        return importlib.import_module(name)
    except StepwellError:
        raise
    except ModuleNotFoundError as e:
        if e.name is not None and (name == e.name or name.startswith(f"{e.name}.")):
            raise AppError(f"no module {name!r} in {Path.cwd()} or on Python's path") from e
        raise AppError(f"importing {name!r} failed: {e}") from e
    except SyntaxError as e:
        raise AppError(f"importing {name!r} failed: {e.msg} in {e.filename}, line {e.lineno}") from e
    except (Exception, SystemExit) as e:  # the module may raise anything
        raise AppError(f"importing {name!r} failed: {type(e).__name__}: {e}") from e
