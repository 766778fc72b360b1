"""`stepwell demo`: a human in the loop, a kill -9, and a rerun that repeats nothing, each in processes of their own."""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import shlex
import time
from collections import Counter
from pathlib import Path
from typing import Any

from attrs import frozen

from ..engine import Engine
from ..errors import NotFoundError
from ..events import Step, Suspend
from .mistakes import ENDED_BADLY, OK, DemoError, UsageError
from .opening import open_store
from .processes import Process
from .reading import show_history
from .terminal import Terminal, safe_json

__all__ = ["demo", "repeated"]

APP = "stepwell.demo:engine"
_VERDICT = '{"approved": true, "reviewer": "alice"}'
_KILL_AFTER = 4  # steps on disk
_PATIENCE = 20.0  # seconds that the process to be killed may take to get there


def demo(options: argparse.Namespace, terminal: Terminal) -> int:
    """Run the demonstration; 1 when a finished step was run twice."""
    folder = Path(options.dir)
    if not folder.is_dir():
        raise UsageError(f"--dir {options.dir}: no such directory")
    url = options.store or f"sqlite:///{folder / 'stepwell-demo.db'}"
    if url.startswith("memory:"):
        raise UsageError("the demo kills a process, and a memory: store would die with it; name another store")
    began = time.monotonic()
    with Engine(open_store(url, must_exist=False)) as engine:
        shown = _Demo(terminal, options.json, folder, url, engine)
        shown.workflow()
        shown.tickets()
        shown.decision()
        killed = shown.killed_batch()
        found = shown.rerun(killed)
        wrong = repeated(killed.finished, found)
        seconds = time.monotonic() - began
        if options.json:
            terminal.json(_summary(shown, killed, found, wrong, seconds))
        else:
            shown.end(wrong, seconds)
    return ENDED_BADLY if wrong else OK


@frozen
class Execution:
    """A line of the effects log: a step's function was called by this process."""

    step: str
    pid: int


@frozen
class Killed:
    """What the killed process left behind.

    Attributes:
        finished: steps whose end is recorded.
        executions: calls until its death.
        lines: its history, as it is stored.
    """

    pid: int
    finished: tuple[str, ...]
    executions: list[Execution]
    lines: list[bytes]


def repeated(finished: tuple[str, ...], executions: list[Execution]) -> list[str]:
    """The finished steps that were not executed exactly once."""
    counts = Counter(one.step for one in executions)
    return [step for step in finished if counts[step] != 1]


class _Demo:
    """The parts of the show.

    Args:
        terminal: where it is shown.
        quiet: nothing but the end is wanted.
        folder: where its files are left.
        url: its store.
        engine: reads that store; it knows no workflow.
    """

    def __init__(self, terminal: Terminal, quiet: bool, folder: Path, url: str, engine: Engine) -> None:
        self.terminal = terminal
        self.quiet = quiet
        self.url = url
        self.engine = engine
        self.file = folder / "stepwell-demo-tickets.json"
        self.log = folder / "stepwell-demo-effects.log"
        self.prefix = self._unused_prefix()
        self.batch = f"{self.prefix}replies"
        self.ticket = f"{self.prefix}T-3"

    # ---- the acts

    def workflow(self) -> None:
        """What a workflow looks like."""
        from stepwell.demo import triage

        self._title(
            "", "A workflow is a generator that yields what it wants done; stepwell does it and writes it down."
        )
        if not self.quiet:
            for line in inspect.getsource(triage.fn).splitlines():
                self.terminal.line(f"    {line}")

    def tickets(self) -> None:
        """Tickets are read from a file; a severe one waits for a human."""
        from stepwell.demo import TICKETS

        if not self.file.exists():
            self.file.write_text(json.dumps(TICKETS, ensure_ascii=False, indent=2) + "\n", "utf-8")
        self._title("1", "Support tickets come in, and a severe one waits for a human")
        with self._process(["stepwell.demo", str(self.file), "--prefix", self.prefix]) as process:
            process.finish()
        self._say(f"Process {process.pid} has exited. {self.ticket} waits, and no process holds it in memory.")
        self._title("2", f"What is on disk of {self.ticket}")
        if self.quiet:
            return
        show_history(self.terminal, self.engine, self.ticket)
        self.terminal.line()
        self._say("The same records as the store has them, one JSON object an event:")
        for line in self._lines(self.ticket):
            self.terminal.line(safe_json(line.decode()), "dim")

    def decision(self) -> None:
        """Another process brings the verdict."""
        if not any(isinstance(event, Suspend) for event in self.engine.history(self.ticket)):
            raise DemoError(f"{self.ticket} does not wait for a human; was {self.file} changed?")
        self._title("3", "Another process brings the verdict, and the run goes on where it stood")
        self._cli("resume", self.ticket, "manual-review", _VERDICT)

    def killed_batch(self) -> Killed:
        """A batch is killed in the middle of a step."""
        self._title("4", "A batch of replies is killed in the middle: kill -9")
        with self._start_batch() as process:
            self._wait_for_the_middle(process)
            process.kill()
        steps = self._steps()
        executions = self._executions()
        open_steps = [one.step for one in executions if one.step not in steps]
        where = f"inside {open_steps[-1]!r}" if open_steps else "between two steps"
        self._say(f"kill -9 {process.pid}: it died {where}, with {len(steps)} replies on disk.", "bad")
        return Killed(process.pid, steps, executions, self._lines(self.batch))

    def rerun(self, killed: Killed) -> list[Execution]:
        """The same command again, in a new process."""
        self._title("5", "The same command again: what is on disk is answered, not repeated")
        self._wait_until_free()
        with self._start_batch() as process:
            process.finish()
        found = self._executions()
        after = found[len(killed.executions) :]
        if self._lines(self.batch)[: len(killed.lines)] != killed.lines:
            raise DemoError("the records of the killed process have changed")
        if self.engine.get(self.batch).status != "completed":
            raise DemoError(f"{self.batch} is {self.engine.get(self.batch).status}, not completed")
        if not self.quiet:
            self.terminal.line()
            self._table(killed, process.pid, found, {one.step for one in after})
        return found

    def end(self, wrong: list[str], seconds: float) -> None:
        """What was shown, and where to look."""
        self.terminal.line()
        if wrong:
            self._say(f"Finished steps that ran again: {', '.join(wrong)}. That must not happen.", "bad")
        else:
            self._say("No finished step ran twice.", "good")
            self._say(
                "A step that was cut off runs again: nobody can know how far it had come. Its idempotency key is the"
            )
            self._say("same both times, and a step that must never begin twice is marked at_most_once=True.")
        self._title("", f"{seconds:.1f} seconds. The store is yours to look at:")
        at = f"stepwell --store {shlex.quote(_shown(self.url))}"
        for line in (f"{at} list", f"{at} show {self.ticket}", f"{at} show {self.batch} --raw"):
            self.terminal.line(f"  {line}", "bold")

    # ---- how

    def _unused_prefix(self) -> str:
        """What the run ids of this demonstration begin with; earlier ones left theirs in the store and the log."""
        log = self.log.read_text("utf-8") if self.log.exists() else ""
        for number in itertools.count(1):
            prefix = f"demo-{number}/"
            taken = any(self.engine.store.head(f"{prefix}{name}") for name in ("replies", "T-1"))
            if not taken and prefix not in log:
                return prefix
        raise AssertionError

    def _wait_for_the_middle(self, process: Process) -> None:
        """Look at the store until enough steps are on disk and another one has begun."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            done = len(self._steps())
            if done >= _KILL_AFTER and len(self._executions()) > done:
                return
            if process.ended:
                raise DemoError(f"process {process.pid} ended before it could be killed; run the demo again")
            time.sleep(0.01)
        raise DemoError(f"process {process.pid} did not get to step {_KILL_AFTER} in {_PATIENCE:.0f} seconds")

    def _wait_until_free(self) -> None:
        """Where a store can't see that a process is dead, its run is free when its lease is over."""
        said = False
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            head = self.engine.store.head(self.batch)
            if head is None or head.lease_until is None:
                return
            if not said:
                self._say("This store hears of no death: the run is free when the dead process's lease is over.")
                said = True
            time.sleep(0.05)
        raise DemoError(f"the lease of {self.batch} did not end in {_PATIENCE:.0f} seconds")

    def _start_batch(self) -> Process:
        return self._open("start", "send_replies", json.dumps(str(self.log)), "--run-id", self.batch)

    def _cli(self, *arguments: str) -> None:
        with self._open(*arguments) as process:
            process.finish()

    def _open(self, *arguments: str) -> Process:
        return self._process(["stepwell", "--store", self.url, "--app", APP, *arguments])

    def _process(self, arguments: list[str]) -> Process:
        """Show the command and start it."""
        command = arguments if arguments[0] == "stepwell" else ["python", "-m", *arguments]
        self._say(f"$ {shlex.join(map(_shown, command))}", "bold")
        return Process(None if self.quiet else self.terminal, arguments, self.url)

    def _steps(self) -> tuple[str, ...]:
        """Steps of the batch whose end is on disk."""
        try:
            history = self.engine.history(self.batch)
        except NotFoundError:
            return ()
        return tuple(event.step_id for event in history if isinstance(event, Step))

    def _executions(self) -> list[Execution]:
        """Every call of a step of this batch, by whichever process."""
        if not self.log.exists():
            return []
        lines = self.log.read_text("utf-8").split("\n")[:-1]  # what has no line break yet is being written
        entries = [json.loads(line) for line in lines]
        return [Execution(one["step"], one["pid"]) for one in entries if one["run"] == self.batch]

    def _lines(self, run_id: str) -> list[bytes]:
        tail = self.engine.store.read(run_id)
        return tail.records if tail is not None else []

    def _table(self, killed: Killed, pid: int, executions: list[Execution], later: set[str]) -> None:
        counts = Counter(one.step for one in executions)
        first = {one.step for one in killed.executions}
        rows = []
        for step in counts:
            before = "ran" if step in killed.finished else "killed in it" if step in first else ""
            after = "ran" if step in later else "answered from history"
            rows.append((step, before, after, str(counts[step])))
        self.terminal.table(("step", f"process {killed.pid}", f"process {pid}", "times run"), rows, indent=2)

    def _title(self, number: str, text: str) -> None:
        if not self.quiet:
            self.terminal.line()
            self.terminal.line(f"{number}. {text}" if number else text, "heading")
            self.terminal.flush()

    def _say(self, text: str, style: str = "") -> None:
        if not self.quiet:
            self.terminal.line(text, style)
            self.terminal.flush()


def _shown(argument: str) -> str:
    """An argument as it may be shown: a URL without its password."""
    from stepwell_stores import masked

    return masked(argument)


def _summary(shown: _Demo, killed: Killed, found: list[Execution], wrong: list[str], seconds: float) -> dict[str, Any]:
    return {
        "store": _shown(shown.url),
        "suspended": shown.ticket,
        "batch": shown.batch,
        "killed": {"pid": killed.pid, "finished": list(killed.finished)},
        "executions": dict(Counter(one.step for one in found)),
        "repeated": wrong,
        "seconds": round(seconds, 2),
    }
