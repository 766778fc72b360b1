"""The arguments of each verb."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..store import FORMAT_VERSION
from . import acting, reading, working
from .checking import add_check
from .mistakes import EXIT_CODES, UsageError
from .moving_options import add_moving
from .opening import KEYS_VARIABLE, STORE_VARIABLE, use_key_file
from .scheduling_options import add_schedule
from .terminal import Terminal
from .upkeep_options import add_upkeep, add_worker_upkeep

__all__ = ["parse"]

_STATUSES = ("pending", "running", "suspended", "paused", "completed", "failed", "cancelled")
_VALUE = "JSON, '@FILE' or '-' for standard input"
_NEEDS_APP = "Runs workflow code, so it needs --app."
_INCARNATION = "an earlier one; 0 is the first (default: the newest)"
_DIFFERS = "Exit code 0 when they are the same, 1 when they differ."
_READS_ONLY = "Reads source; imports and runs nothing. Exit code 1 when there are findings."
_SERVES = f"SIGTERM or Ctrl-C: the steps that run are recorded, then it ends; the second one kills it. {_NEEDS_APP}"

_EPILOG = f"""\
where the runs are:
  --store URL            sqlite:///runs.db, file:runs (a directory of JSONL files); or set {STORE_VARIABLE}
                         compressed+, encrypted+ and offloaded+ before it: stores around it; keys by --key-file
  --app MODULE:ENGINE    an Engine in a module that is imported with the current directory on its path; worker, start,
                         resume, retry and fork need it, and the store is then the engine's own. An app that is
                         made with Engine(os.environ["{STORE_VARIABLE}"], ...) follows --store.

values:
  A JSON argument is JSON ('{{"approved": true}}', '"text"', 12), @FILE, or - for standard input.

exit codes:
""" + "".join(f"  {code:<4} {meaning}\n" for code, meaning in EXIT_CODES.items())


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong, in place of printing usage and leaving."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message} (see: {self.prog} --help)")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: reading metadata takes longer than most verbs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print it and leave."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("stepwell")
        except PackageNotFoundError:
            found = "(not installed)"
        Terminal(sys.stdout).line(
            f"stepwell {found}, history format {FORMAT_VERSION}, Python {platform.python_version()}"
        )
        parser.exit()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; `call` of what it gives is the verb's function.

    Raises:
        UsageError: it is wrong.
        SystemExit: after --help and --version.
    """
    options = _make_parser().parse_args(argv)
    defaults = {"json": False, "store": None, "app": None, "key_file": None}
    for name, value in defaults.items():  # the parser has none: each may stand in two places
        setattr(options, name, getattr(options, name, value))
    if options.key_file is not None:
        use_key_file(options)
    return options


def _make_parser() -> _Parser:
    common = _common()
    parser = _Parser(
        prog="stepwell",
        description="Durable workflows as plain Python generators: look at runs and move them on.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, title="commands")

    def verb(name: str, call: Callable[..., int], text: str, more: str = "") -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name, help=text, description=f"{text}. {more}".strip(), parents=[common], allow_abbrev=False
        )
        made.set_defaults(call=call)
        return made

    _demo(verb)
    _readers(verb)
    _starters(verb)
    _controls(verb)
    _services(verb)
    add_schedule(verb, common)
    return parser


def _common() -> _Parser:
    """Options that may stand before and after the verb."""
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--store", metavar="URL", help=f"the store; {STORE_VARIABLE} when it is left out")
    common.add_argument(
        "--key-file", metavar="FILE", help=f"the store is encrypted, and its keys are here; or set {KEYS_VARIABLE}"
    )
    common.add_argument("--app", metavar="MODULE:ENGINE", help="the engine with the workflows' code")
    common.add_argument("--json", action="store_true", help="JSON for programs, in place of text for people")
    return common


def _demo(verb: Callable[..., argparse.ArgumentParser]) -> None:
    text = "On a SQLite store of its own in --dir, or on the one that --store names."
    made = verb(
        "demo", _call_demo, "See it work: a human in the loop, a kill -9, and a rerun that repeats nothing", text
    )
    made.add_argument(
        "--dir", default=".", metavar="DIR", help="where the demo's store and files are left (default: .)"
    )


def _call_demo(options: argparse.Namespace, terminal: Terminal) -> int:
    from .demo import demo

    return demo(options, terminal)


def _readers(verb: Callable[..., argparse.ArgumentParser]) -> None:
    made = verb("list", reading.list_runs, "List runs, newest first")
    made.add_argument("--status", choices=_STATUSES, help="only runs of this status")
    made.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
    made.add_argument("--tag", metavar="NAME[=VALUE]", help="only runs with this tag")
    made.add_argument("--waiting", metavar="SIGNAL", help="only runs that wait for this signal")
    made.add_argument("--blocked", action="store_true", help="only runs that the code does not fit any more")
    made.add_argument("--version", metavar="VERSION", help="only runs on this version of their workflow")
    made.add_argument("--open", action="store_true", help="only runs that are not closed")
    made.add_argument(
        "--without-patch",
        metavar="ID",
        help="only open runs that go the old way at Patched(ID): with --app by their code, else by their histories",
    )
    made.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (default: 100)")
    made.add_argument("--after", metavar="RUN", help="those after this run, the last one of the page before")

    made = verb("show", reading.show, "Show a run and its history")
    _run(made)
    form = made.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="the records as they are stored, one JSON object a line")
    form.add_argument("--timeline", action="store_true", help="one line an event, with the time since the start")
    form.add_argument("--mermaid", action="store_true", help="a sequence diagram in Mermaid's language")
    made.add_argument(
        "--follow",
        action="store_true",
        help="show events as they come, one line each, retries and resets too, until the run is closed or Ctrl-C",
    )
    made.add_argument("--incarnation", type=int, metavar="N", help=_INCARNATION)

    made = verb("diff", _call_diff, "Compare two runs: where their histories part, and how", _DIFFERS)
    made.add_argument("a", metavar="A", help="a run's id")
    made.add_argument("b", metavar="B", help="another's, or the same one's")
    for name in "ab":
        made.add_argument(f"--incarnation-{name}", type=int, metavar="N", help=f"of {name.upper()}: {_INCARNATION}")


def _starters(verb: Callable[..., argparse.ArgumentParser]) -> None:
    made = verb("start", acting.start, "Run a workflow here until it is closed or parked", _NEEDS_APP)
    made.add_argument("workflow", metavar="WORKFLOW", help="its name")
    made.add_argument("args", metavar="JSON", nargs="*", help=f"its arguments, each {_VALUE}")
    made.add_argument("--run-id", metavar="ID", help="the run's key (default: a new one)")
    made.add_argument("--tag", action="append", default=[], metavar="NAME=VALUE", help="a label; may be repeated")
    made.add_argument("--budget", type=float, metavar="AMOUNT", help="how much the run may spend")
    made.add_argument(
        "--if-open", choices=("join", "error", "restart"), default="join", help="the run is there and open"
    )
    made.add_argument(
        "--if-closed",
        choices=("return", "retry_failed", "error", "restart"),
        default="return",
        help="the run is there and closed",
    )

    made = verb("resume", acting.resume, "Give a run the signal that it waits for, and drive it on here", _NEEDS_APP)
    _run(made)
    _payload(made)

    made = verb("retry", acting.retry, "Go on with a failed run; finished steps stay finished", _NEEDS_APP)
    _run(made)

    made = verb("fork", acting.fork, "Begin another run with this one's history up to a point", _NEEDS_APP)
    _run(made)
    made.add_argument(
        "--before",
        metavar="STEP|SEQ",
        help="what comes before it is taken over; with --replace it may be left out: then all up to that step",
    )
    made.add_argument("--replace", metavar="STEP", help="a recorded step that is to have had another result")
    made.add_argument("--value", metavar="JSON", help=f"that result: {_VALUE}")
    made.add_argument("--run-id", metavar="ID", help="the new run's key (default: a new one)")


def _controls(verb: Callable[..., argparse.ArgumentParser]) -> None:
    made = verb("signal", acting.signal, "Record a signal for whoever drives the run")
    _run(made)
    _payload(made)
    made.add_argument("--start", metavar="WORKFLOW", help="create the run, with the signal in it, if there is none")
    made.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="JSON",
        help=f"with --start: its arguments in order, each {_VALUE}",
    )
    made.add_argument("--tag", action="append", default=[], metavar="NAME=VALUE", help="with --start: a label")
    made.add_argument(
        "--if-closed",
        choices=("error", "restart"),
        default="error",
        help="with --start: the run is there and closed (default: error)",
    )
    for name, call, text in (
        ("pause", acting.pause, "Stop a run at its next yield"),
        ("cancel", acting.cancel, "Cancel a run; with --app its clean-up is performed here"),
    ):
        made = verb(name, call, text)
        _run(made)
        made.add_argument("--reason", metavar="TEXT", help="kept in the history")
    made.add_argument("--force", action="store_true", help="close it at once, without any clean-up")
    _run(verb("unpause", acting.unpause, "Let a paused run go on; with --app it is driven here"))
    made = verb("delete", acting.delete, "Remove a closed run with its whole history")
    _run(made)
    made.add_argument("--yes", action="store_true", help="it can't be undone, so this has to be said")


def _services(verb: Callable[..., argparse.ArgumentParser]) -> None:
    made = verb(
        "worker", working.work, "Drive the runs that are submitted, due or abandoned, until told to stop", _SERVES
    )
    made.add_argument(
        "--threads", type=_threads, default=16, metavar="N", help="runs driven at once, 1 to 1000 (default: 16)"
    )
    made.add_argument(
        "--poll",
        type=_poll,
        default=0.2,
        metavar="SECONDS",
        help="time between two looks at an idle store (default: 0.2)",
    )
    made.add_argument("--drain", action="store_true", help="end when nothing is due any more")
    add_worker_upkeep(made)
    add_upkeep(verb)
    add_moving(verb)
    add_check(verb)
    verb("verify", _call_verify, "Read every byte of a store and tell what is damaged", "Changes no record.")
    verb("doctor", _call_doctor, "Show what a store survives, how its runs stand, and what wants to be looked at")
    made = verb("lint", _call_lint, "Find what makes workflow code differ from one replay to the next", _READS_ONLY)
    made.add_argument("targets", metavar="MODULE|FILE", nargs="*", help="modules, packages, files, folders")
    made.add_argument(
        "--format",
        choices=("text", "editor", "github"),
        default="text",
        help="editor: file:line:column: RULE text; github: annotations of a workflow of GitHub (default: text)",
    )
    made.add_argument("--rules", action="store_true", help="show the rules, and lint nothing")


def _call_diff(options: argparse.Namespace, terminal: Terminal) -> int:
    from .inspecting import diff

    return diff(options, terminal)


def _call_verify(options: argparse.Namespace, terminal: Terminal) -> int:
    from .verifying import verify

    return verify(options, terminal)


def _call_doctor(options: argparse.Namespace, terminal: Terminal) -> int:
    from .doctoring import doctor

    return doctor(options, terminal)


def _call_lint(options: argparse.Namespace, terminal: Terminal) -> int:
    from .linting import lint

    return lint(options, terminal)


def _threads(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"takes a whole number from 1 to 1000, as in --threads 4, and got {text!r}")
    return int(text)


def _poll(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 86_400:  # also false for NaN
        raise argparse.ArgumentTypeError(f"takes seconds from 0.001 to 86400, as in --poll 0.5, and got {text!r}")
    return seconds


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's id")


def _payload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("signal", metavar="SIGNAL", help="the signal's name")
    parser.add_argument(
        "value", metavar="JSON", nargs="?", default="null", help=f"its payload: {_VALUE} (default: null)"
    )
    parser.add_argument("--wait", metavar="WAIT", help="the wait that this answers, as `show` tells it")
    parser.add_argument("--id", metavar="ID", help="the same id twice counts once")
    parser.add_argument("--actor", metavar="WHO", help="who sends it; kept in the history")
    parser.add_argument(
        "--meta",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="something else to be kept with it; may be repeated",
    )
