"""The parts of the reference that follow from the code: `python tests/docs/generate.py` writes them anew.

(In a checkout that is not installed: `PYTHONPATH=engine:stores python tests/docs/generate.py`.)

A page holds `<!-- generated: NAME -->`, what is generated, and `<!-- end -->`; the rest of it is written by hand.
`test_reference.py` fails when a page is not what this gives.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

import stepwell
from stepwell import Command, StepwellError, errors, events, lifecycle, limits, schedules, streaming, testing
from stepwell.cli import mistakes, options
from stepwell.run_streams import RunStream
from stepwell.testing.linting.rules import RULES
from stepwell.worker import Worker
from stepwell_stores import open_store
from stepwell_stores.wrapping import CompressedStore, EncryptedStore, KeyRing, OffloadingStore

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

# As a script this file does not know of its neighbours before.
from tests.docs import durability, invariants, performance, scenarios  # noqa: E402
from tests.docs import stores as store_tables  # noqa: E402

MARKED = re.compile(r"(<!-- generated: ([\w .,-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LISTS = ("Args", "Attributes", "Raises")
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example):$")

# The names of `stepwell` by section; errors have a table of their own.
SECTIONS: dict[str, tuple[str, ...]] = {
    "engine": ("Engine", "HistoryLimit"),
    "workflows": ("workflow", "durable", "Workflow", "Flow", "step", "get_logger"),
    "outcomes": (
        "Outcome",
        "RunCompleted",
        "RunSuspended",
        "RunFailed",
        "RunCancelled",
        "RunPaused",
        "Running",
        "RunRecord",
        "WaitingFor",
    ),
    "inspection": ("History", "Diff", "diff"),
    "retention": ("Pruned", "StoreSize"),
    "moving": ("Moved",),
    "steps": ("RetryPolicy", "current_step", "StepContext", "Failure", "failed"),
    "values": ("Codec",),
    "signals": ("Signal", "Decision", "Command"),
}
ALIASES = {"Flow": "stepwell.command", "Outcome": "stepwell.outcomes"}
TESTING = ("replay", "Replay", "returned", "raised", "received", "fired", "patched", "cancelled")


# ---- docstrings


def summary(thing: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def alias_text(name: str) -> str:
    """What stands below a type alias in its module."""
    tree = ast.parse(inspect.getsource(sys.modules[ALIASES[name]]))
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            assert node.value is not None
            assert isinstance(after, ast.Expr)
            text = ast.literal_eval(after.value)
            return f"`{name} = {ast.unparse(node.value)}`  \n{text}"
    raise LookupError(name)


def rendered_docstring(thing: Any) -> list[str]:
    """A docstring in Google form as Markdown."""
    lines: list[str] = []
    section = ""
    for line in (inspect.getdoc(thing) or "").splitlines():
        found = SECTION.match(line)
        if found:
            section = found[1]
            lines += ["```pycon"] if section == "Example" else [f"*{section}:*", ""]
        elif section and line and not line.startswith(" "):
            lines += ["```", ""] if section == "Example" else [""]
            section = ""
            lines.append(line)
        elif section in LISTS:
            lines.append(_item(line))
        else:
            lines.append(line[4:] if section else line)
    if section == "Example":
        lines.append("```")
    return _tidy(lines)


def _item(line: str) -> str:
    """A line of Args, Attributes or Raises: a list item, or what continues one."""
    if line.startswith("        "):
        return f"  {line.strip()}"
    names, colon, text = line.strip().partition(": ")
    quoted = ", ".join(f"`{name}`" for name in names.split(", "))
    return f"- {quoted}: {text}" if colon else line.strip()


def _tidy(lines: list[str]) -> list[str]:
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip()
    return re.sub(r"\n+```$", "\n```", text).split("\n")


# ---- signatures


def signature(thing: Any, name: str, *, method: bool = False) -> str:
    """A call in one line: names and defaults; types are told in words."""
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return name
    parts: list[str] = []
    star = False
    for parameter in list(inspect.signature(thing).parameters.values())[1 if method else 0 :]:
        if parameter.name.startswith("_"):
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
            parts.append(f"*{parameter.name}")
        elif parameter.kind is parameter.VAR_KEYWORD:
            parts.append(f"**{parameter.name}")
        else:
            if parameter.kind is parameter.KEYWORD_ONLY and not star:
                star = True
                parts.append("*")
            parts.append(parameter.name + _default(parameter.default))
    return f"{name}({', '.join(parts)})"


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return ""
    if "Factory" in type(value).__name__ or repr(value) == "NOTHING":
        return "=..."
    return f"={value.__name__}" if inspect.isfunction(value) else f"={value!r}"


def own_members(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """What a class defines itself, and what it has of bases of our own that nobody can import from `stepwell`."""
    for part in cls.__mro__:
        if part is cls or (part.__module__.startswith("stepwell.") and part.__name__ not in dir(stepwell)):
            yield from vars(part).items()


def members(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class, or a part of it that is not public, defines and explains."""
    for name, member in own_members(cls):
        called = inspect.isfunction(member) or isinstance(member, (property, classmethod))
        if called and not name.startswith("_") and member.__doc__:
            yield name, member


def entry(name: str, thing: Any, prefix: str = "") -> list[str]:
    """One name with everything below it."""
    if name in ALIASES:
        return [f"### `{name}`", "", *alias_text(name).splitlines(), ""]
    lines = [f"### `{prefix}{signature(thing, name)}`", "", *rendered_docstring(thing), ""]
    if inspect.isclass(thing):
        for member_name, member in members(thing):
            call = f"{name}.{member_name}"
            if not isinstance(member, property):
                call = signature(getattr(member, "__func__", member), call, method=True)
            lines += [f"#### `{call}`", "", *rendered_docstring(member), ""]
    return lines


# ---- tables


def table(head: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A Markdown table."""
    columns = head.split(" | ")
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {head} |", "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in escaped)]


def commands() -> list[str]:
    """Every command: its call, and its docstring."""
    lines: list[str] = []
    for name in command_names():
        cls = getattr(stepwell, name)
        lines += [f"## `{signature(cls, name)}`", "", *rendered_docstring(cls), ""]
        for member_name, member in members(cls):
            if not isinstance(member, property):
                lines += [f"### `{signature(member, f'{name}.{member_name}', method=True)}`", ""]
                lines += [*rendered_docstring(member), ""]
    return lines


def command_names() -> list[str]:
    """The commands that `stepwell` exports, in the order in which one learns them."""
    first = ["Step", "Transaction", "Stream", "Suspend", "Sleep", "All", "Race", "Now", "Random", "Uuid", "Emit"]
    first += ["SetState", "Patched", "Child", "ContinueAsNew", "Spend", "Compensate"]
    found = {name for name in stepwell.__all__ if _is_command(getattr(stepwell, name))}
    return [name for name in first if name in found] + sorted(found - set(first))


def _is_command(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Command) and thing is not Command


def command_table() -> list[str]:
    """Commands at a glance."""
    return table(
        "Name | What it asks for", [(f"`{name}`", summary(getattr(stepwell, name))) for name in command_names()]
    )


def event_table() -> list[str]:
    """Every event, with the keys that its envelope does not have."""
    common = {field.name for field in msgspec.structs.fields(events.EventBase)}
    rows = []
    for kind, cls in events.EVENT_TYPES.items():
        own = [field for field in msgspec.structs.fields(cls) if field.name not in common]
        keys = ", ".join(f"`{field.encode_name}`" + ("" if field.required else "?") for field in own)
        writer = "outside" if cls in events.OUTSIDE else "owner"
        rows.append((f"`{kind}`", writer, keys or "none", summary(cls)))
    return table("Type | Written by | Keys | What it says", rows)


def event_keys() -> list[str]:
    """What the docstrings of events say of their keys."""
    lines: list[str] = []
    for kind, cls in events.EVENT_TYPES.items():
        text = "\n".join(rendered_docstring(cls)).partition("*Attributes:*\n\n")[2]
        for field in msgspec.structs.fields(cls):
            text = text.replace(f"- `{field.name}`:", f"- `{field.encode_name}`:")
        if text:
            lines += [f"`{kind}`:", "", *text.split("\n"), ""]
    return lines


def error_table() -> list[str]:
    """What callers catch."""
    rows = []
    for cls in _below(StepwellError):
        base = "" if cls is StepwellError else f"`{cls.__mro__[1].__name__}`"
        rows.append((f"`{cls.__name__}`", f"`{cls.code}`", "yes" if cls.retryable else "no", base, summary(cls)))
    return table("Class | Code | Retryable | Base | Meaning", rows)


def _below(cls: type[StepwellError]) -> Iterator[type[StepwellError]]:
    """A class of `stepwell.errors` and those below it, `stepwell.limits` included, in the order of the modules."""
    for module in (errors, limits):
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, cls) and value.__module__ == module.__name__:
                yield value


def thrown_table() -> list[str]:
    """What workflows catch."""
    names = ("StepFailed", "StepInterrupted", "ChildFailed", "TimedOut", "SignalRejected", "Cancelled")
    rows = []
    for name in names:
        cls = getattr(errors, name)
        known = (
            base.__name__
            for base in cls.__mro__[1:]
            if base.__name__ in stepwell.__all__ or base.__module__ == "builtins"
        )
        rows.append((f"`{name}`", f"`{next(known)}`", summary(cls)))
    return table("Class | Base | Meaning", rows)


def error_attributes() -> list[str]:
    """What errors carry."""
    lines: list[str] = []
    for cls in (*_below(StepwellError), errors.StepFailed, errors.TimedOut, errors.SignalRejected):
        text = rendered_docstring(cls)
        if "*Attributes:*" in text and cls is not StepwellError:
            lines += [f"`{cls.__name__}`:", *text[text.index("*Attributes:*") + 1 :], ""]
    return lines


def error_names() -> list[str]:
    """The errors and warnings that `stepwell` exports."""
    rows = [
        (f"`{name}`", summary(getattr(stepwell, name)))
        for name in stepwell.__all__
        if inspect.isclass(getattr(stepwell, name)) and issubclass(getattr(stepwell, name), BaseException | Warning)
    ]
    return table("Name | Meaning", rows)


def lifecycle_table() -> list[str]:
    """What `on_event` gets."""
    rows = []
    for name in lifecycle.__all__:
        cls = getattr(lifecycle, name)
        if inspect.isclass(cls):
            fields = ", ".join(f"`{parameter}`" for parameter in inspect.signature(cls).parameters)
            rows.append((f"`{name}`", fields, summary(cls)))
    return table("Event | Fields | Meaning", rows)


def stream_table() -> list[str]:
    """What `engine.stream` gives."""
    rows = []
    for name in streaming.__all__:
        cls = getattr(streaming, name)
        if inspect.isclass(cls) and issubclass(cls, msgspec.Struct):
            fields = [field.name for field in msgspec.structs.fields(cls)]
            own = ", ".join(f"`{field}`" for field in fields if field not in ("run_id", "incarnation", "seq"))
            rows.append((f"`{name}`", own, summary(cls)))
    return table("Event | Fields | Meaning", rows)


# ---- the command line


def verbs() -> list[str]:
    """Every verb with its arguments."""
    parser = options._make_parser()
    common = {name for action in options._common()._actions for name in action.option_strings}
    lines: list[str] = []
    for name, verb in _choices(parser).items():
        lines += [f"## `stepwell {' '.join([name, *_words(verb, common)])}`", "", str(verb.description), ""]
        lines += _arguments(verb, common)
        for one, action in _choices(verb).items():
            lines += [
                f"### `stepwell {' '.join([name, one, *_words(action, common)])}`",
                "",
                str(action.description),
                "",
            ]
            lines += _arguments(action, common)
    return lines


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of verbs, or of a verb's actions; none of a verb without."""
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0]) if found else {}


def _own(parser: argparse.ArgumentParser, common: set[str]) -> list[argparse.Action]:
    shown = [a for a in parser._actions if a.dest != "help" and not isinstance(a, argparse._SubParsersAction)]
    return [action for action in shown if not set(action.option_strings) & common]


def _words(parser: argparse.ArgumentParser, common: set[str]) -> list[str]:
    own = _own(parser, common)
    words = [*(_word(a) for a in own if not a.option_strings), *(_word(a) for a in own if a.option_strings)]
    return [*words, "ACTION"] if _choices(parser) else words


def _arguments(parser: argparse.ArgumentParser, common: set[str]) -> list[str]:
    rows = [(f"`{_name(a)}`", str(a.help)) for a in _own(parser, common)]
    return [*table("Argument | Meaning", rows), ""] if rows else []


def _name(action: argparse.Action) -> str:
    metavar = _metavar(action)
    return f"{action.option_strings[-1]} {metavar}".strip() if action.option_strings else metavar


def _metavar(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())


def _word(action: argparse.Action) -> str:
    """An argument as usage lines have it."""
    name = _name(action)
    if action.nargs == "*":
        return f"[{name} ...]"
    return name if action.required else f"[{name}]"


def exit_codes() -> list[str]:
    """What a script may rely on."""
    rows = [(str(code), meaning) for code, meaning in mistakes.EXIT_CODES.items()]
    return table("Code | Meaning", rows)


# ---- pages


def section(name: str) -> list[str]:
    """The names of a section of the API page."""
    return [line for one in SECTIONS[name] for line in entry(one, getattr(stepwell, one))]


def testing_names() -> list[str]:
    """The testing kit."""
    rest = [name for name in testing.__all__ if name not in TESTING]
    return [
        line
        for name in (*TESTING, *rest)
        if inspect.isclass(thing := getattr(testing, name)) or inspect.isfunction(thing)
        for line in entry(name, thing, "stepwell.testing.")
    ]


def lint_rules() -> list[str]:
    """The rules of lint."""
    rows = [(f"`{one.id}`", one.finds, one.why, one.remedy) for one in RULES.values()]
    return table("Rule | Finds | Because | Write", rows)


def stores() -> list[str]:
    """How a store is opened."""
    found = entry("open_store", open_store, "stepwell_stores.")
    around: tuple[tuple[str, Any], ...] = (
        ("wrapping.EncryptedStore", EncryptedStore),
        ("wrapping.KeyRing", KeyRing),
        ("wrapping.CompressedStore", CompressedStore),
        ("wrapping.OffloadingStore", OffloadingStore),
    )
    return [*found, *(line for name, thing in around for line in entry(name, thing, "stepwell_stores."))]


def run_stream() -> list[str]:
    """What reads a run as it goes."""
    return entry("RunStream", RunStream, "stepwell.run_streams.")


def worker() -> list[str]:
    """What drives runs in a process of its own."""
    return entry("Worker", Worker, "stepwell.worker.")


def schedule_names() -> list[str]:
    """What starts workflows again and again."""
    names = ("Schedule", "upcoming", "ensure", "trigger", "records", "ScheduleRecord", "schedules_of", "Plan")
    return [line for name in names for line in entry(name, getattr(schedules, name), "stepwell.schedules.")]


PARTS: dict[str, Callable[[], list[str]]] = {
    **{name: lambda name=name: section(name) for name in SECTIONS},  # type: ignore[misc]
    "command names": command_table,
    "error names": error_names,
    "testing": testing_names,
    "stores": stores,
    "own store": scenarios.own_store,
    **{f"{name} scenarios": lambda name=name: scenarios.scenario_table(name) for name in scenarios.SYSTEMS},  # type: ignore[misc]
    "schedules": schedule_names,
    "worker": worker,
    "commands": commands,
    "event table": event_table,
    "event keys": event_keys,
    "error table": error_table,
    "thrown table": thrown_table,
    "error attributes": error_attributes,
    "lifecycle": lifecycle_table,
    "stream events": stream_table,
    "run stream": run_stream,
    "verbs": verbs,
    "stores can": store_tables.capabilities_table,
    "stores cost": store_tables.costs_table,
    "stores survive": store_tables.survives_table,
    "durability declared": durability.declared_table,
    "durability survival": durability.survival_table,
    "durability controls": durability.controls_table,
    "durability where": durability.where_measured,
    "promises": invariants.property_table,
    "invariants": invariants.invariant_table,
    "performance tables": performance.tables,
    "exit codes": exit_codes,
    "lint rules": lint_rules,
}


def regenerated(page: str) -> str:
    """A page with its generated parts as the code has them."""
    return MARKED.sub(lambda m: m[1] + "\n" + "\n".join(PARTS[m[2]]()).strip() + "\n\n" + m[3], page)


def main() -> None:
    """Write every page of the reference anew."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text("utf-8")
        if (new := regenerated(text)) != text:
            page.write_text(new, "utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
