"""The rules, as data: what each is about, why, and what to write in its place.

The checks that find them are in `impure`, `ordering`, `sharing`, `leaving` and `yielding`; the page of the reference is
made from this table.
"""

from __future__ import annotations

import msgspec

__all__ = ["RULES", "Rule"]


class Rule(msgspec.Struct, frozen=True):
    """One rule.

    Attributes:
        id: what findings and comments call it.
        finds: what it looks for.
        why: what goes wrong otherwise.
        remedy: what to write, one sentence; a check may give a closer one.
    """

    id: str
    finds: str
    why: str
    remedy: str


_ALL = (
    Rule(
        "clock",
        "`datetime.now()`, `time.time()`, `date.today()`, `time.sleep()`, ...",
        "a replay runs at another time, and goes another way",
        "Write `now = yield from Now()`.",
    ),
    Rule(
        "random",
        "`random`, `secrets`, `uuid4()`, `os.urandom()`, a generator without a seed, or one that outlives the run",
        "a replay draws other values",
        "Write `yield from Random()`, or `yield from Uuid()`; a `random.Random(seed)` may be seeded from it.",
    ),
    Rule(
        "hash",
        "`hash()` and `id()`",
        "they differ from process to process",
        "Use a key that the value has itself, or a digest of `hashlib`.",
    ),
    Rule(
        "io",
        "files, `print`, the network, databases, subprocesses, calls of an `Engine`",
        "it happens again on every replay, and may come out differently",
        "Put it into a function and write `yield from Step(function, ...)`.",
    ),
    Rule(
        "environment",
        "`os.environ`, the current directory, process ids, host names, command-line arguments, the local time zone; "
        "also by way of a global that is set from them",
        "the process that replays may have others",
        "Read it in a Step, or hand it to the workflow as an argument.",
    ),
    Rule(
        "thread",
        "`threading`, `concurrent.futures`, `multiprocessing`, `asyncio`, queues, signals",
        "what runs beside the workflow is not recorded, and its order is another one each time",
        "Write `yield from All(...)` or `Race(...)` of steps or helper generators.",
    ),
    Rule(
        "set-order",
        "iteration over a set whose order decides what is yielded, returned or built",
        "the order of a set differs from process to process",
        "Iterate over `sorted(...)` of it, or over a tuple.",
    ),
    Rule(
        "global",
        "a global, a class attribute, a variable of an enclosing function or a default argument that changes while "
        "runs go on, read or changed by workflow code",
        "a replay meets another value, and a change is made again at each replay",
        "Keep it in a local variable or an argument; what others change is read in a Step.",
    ),
    Rule(
        "swallow",
        "`except BaseException`, bare `except`, `except GeneratorExit` around a `yield` without `raise`; `return`, "
        "`break` or `continue` in its `finally`",
        "it stops a cancel, and the exception by which a parked run leaves memory",
        "Catch `Exception` or less, or end the handler with `raise`.",
    ),
    Rule(
        "finally",
        "in a `finally` around a `yield`: waits, and effects in plain Python; a `with` that is held across a `yield`",
        "waits are refused once the run is cancelled, and plain Python runs each time the run is parked",
        "Clean up with `yield Step(...)`: it is performed once, when the run really passes there.",
    ),
    Rule(
        "unyielded",
        "a command that is made and not yielded: `Step(f, x)` on a line of its own, or used like its result",
        "nothing is performed",
        "Write `yield` or `yield from` in front of it.",
    ),
    Rule(
        "no-command",
        "`yield f(x)` of a plain function, `yield helper(x)` of a generator, `Step(f(x))`, `yield` of any other value",
        "the function is called by the workflow itself, at every replay, and the engine refuses what it gives",
        "Write `yield from Step(f, x)`; for a helper generator or a workflow, `yield from helper(x)`.",
    ),
    Rule(
        "yield-from",
        "a helper generator or a workflow that is called without `yield from`",
        "calling it only makes a generator: nothing of it runs",
        "Write `yield from` in front of it, or hand it to `All` or `Race`.",
    ),
    Rule(
        "allow",
        "a `# stepwell: allow` without a reason, of an unknown rule, or that silences nothing",
        "nobody knows later why it is there",
        "Write `# stepwell: allow RULE reason`, or take it out.",
    ),
)

RULES = {rule.id: rule for rule in _ALL}
"""Every rule by its id, in the order of the reference."""
