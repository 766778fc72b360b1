"""The same histories in other processes, whose strings hash otherwise: one process for each seed, for all of them.

`python -c "from stepwell.testing.refolding import serve; serve()"` is what runs there: it reads a line of JSON that
says where the workflow is, and then one line for each history; it writes what the workflow came to.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import queue
import random
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import msgspec

from .. import events as e
from ..codec import Codec
from ..errors import InvalidInputError
from ..workflows import Workflow
from .telling import Told, fold_and_tell

__all__ = ["OtherProcess", "place_of", "serve"]

_PATIENCE = 60.0
"""Seconds that a process may take for one history."""

_decoder = msgspec.json.Decoder(list[e.Event])


def place_of(workflow: Workflow[..., Any], codec: Codec | None) -> dict[str, Any]:
    """Where another process finds a workflow, and the codec that was given for it.

    Raises:
        InvalidInputError: it can't: they are not at the top of a module that has a file.
    """
    name = workflow.__module__
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    remedy = "; or write hash_seeds=() to do without other processes"
    if module is None or path is None:
        raise InvalidInputError(
            f"workflow {workflow.name!r} is of module {name!r}, which has no file: a process with another hash seed "
            f"can't import it. Put it into a file{remedy}"
        )
    found = _variable(module, workflow)
    if found is None:
        raise InvalidInputError(
            f"workflow {workflow.name!r} ({workflow.fn.__qualname__}) is no variable of {name!r}: a process with "
            f"another hash seed can't import it. Define it at the top of the module, not inside a function{remedy}"
        )
    coder = None if codec is None else _variable(module, codec)
    if codec is not None and coder is None:
        raise InvalidInputError(
            f"the codec is no variable of {name!r}, where workflow {workflow.name!r} is: a process with another hash "
            f"seed can't import it. Make it known there{remedy}"
        )
    return {"module": name, "path": path, "workflow": found, "codec": coder, "sys_path": [p for p in sys.path if p]}


def _variable(module: Any, thing: Any) -> str | None:
    return next((name for name, value in vars(module).items() if value is thing), None)


class OtherProcess:
    """A process whose strings hash by another seed.

    Args:
        seed: its PYTHONHASHSEED.
        place: where the workflow is.
    """

    def __init__(self, seed: int, place: dict[str, Any]) -> None:
        self.seed = seed
        self._lines: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from stepwell.testing.refolding import serve; serve()"],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(place["sys_path"])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._send({**place, "seed": seed})

    def start(self) -> None:
        """Wait until it has the workflow.

        Raises:
            InvalidInputError: it can't import it; the text is that of the error there.
        """
        said = self._receive()
        if said != {"ready": True}:
            raise InvalidInputError(
                "a process with another hash seed can't import the workflow; write hash_seeds=() to do without. There: "
                f"{said.get('error')}"
            )

    def ask(self, events: list[e.EventBase]) -> None:
        """Give it a history."""
        self._send({"events": msgspec.json.encode(events).decode()})

    def told(self) -> Told:
        """What the workflow came to there."""
        said = self._receive()
        if "told" not in said:
            raise InvalidInputError(f"the process with hash seed {self.seed} failed: {said.get('error')}")
        told: Told = said["told"]
        return told

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _send(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except OSError:  # it is gone, which is told when its answer is read
            return

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=_PATIENCE)
        except queue.Empty:
            return {"error": f"it was silent for {_PATIENCE:g} s"}
        if not line:
            return {"error": f"it ended by itself, with code {self._process.wait()}"}
        said: dict[str, Any] = json.loads(line)
        return said


# ---- in that process


def serve() -> None:
    """Fold histories that come in, until there are no more."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the module prints is not part of the talk

    def say(what: dict[str, Any]) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    lines = iter(sys.stdin.readline, "")
    place = json.loads(next(lines))
    try:
        module = _module(place)
        workflow = getattr(module, place["workflow"])
        codec = Codec() if place["codec"] is None else getattr(module, place["codec"])
        say({"ready": True})
    except BaseException as error:  # noqa: BLE001 - whatever the module does when it is imported
        say({"error": "".join(traceback.format_exception_only(error)).strip()})
        return
    for line in lines:
        try:
            events: list[Any] = _decoder.decode(json.loads(line)["events"])
            random.seed(place["seed"])
            say({"told": fold_and_tell(workflow, events, codec)})
        except Exception as error:  # noqa: BLE001 - told to the other side
            say({"error": "".join(traceback.format_exception_only(error)).strip()})


def _module(place: dict[str, Any]) -> Any:
    """The workflow's module, by its name, or by its file, as a test module that is no part of a package is found."""
    name, path = place["module"], Path(place["path"])
    sys.path[:] = [*place["sys_path"], *(entry for entry in sys.path if entry not in place["sys_path"])]
    parts = name.split(".")
    folder = path.parent if path.stem == "__init__" else path
    if list(folder.with_suffix("").parts[-len(parts) :]) == parts:
        sys.path.append(str(folder.parents[len(parts) - 1]))  # from here its package is found, relative imports and all
    if name != "__main__":
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise
        else:
            if Path(getattr(found, "__file__", None) or "").resolve() == path.resolve():
                return found
    name = "__refolded__" if name == "__main__" else name
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
