"""What happened in this process, counted: a listener and a meter, and the table that they fill."""

from __future__ import annotations

from collections import Counter

from stepwell.lifecycle import BudgetSpent, LifecycleEvent, RunBlocked, RunClosed

counts: Counter[str] = Counter()
cents: Counter[str] = Counter()


def count_event(event: LifecycleEvent) -> None:
    """For `Engine(on_event=)`: called in the thread in which it happens, so a program with several takes a lock."""
    match event:
        case RunClosed(status=status):
            counts[f"RunClosed {status}"] += 1
        case RunBlocked(code=code):
            counts[f"RunBlocked {code}"] += 1
        case other:
            counts[type(other).__name__] += 1


def count_charge(charge: BudgetSpent) -> None:
    """For `Engine(meter=)`: called once for each charge that is recorded, and never on replay."""
    cents[charge.label or "other"] += int(charge.amount)


def table() -> list[str]:
    """All counts, a line each."""
    rows = [(name, str(count)) for name, count in sorted(counts.items())]
    rows += [(name, f"{amount} cents") for name, amount in sorted(cents.items())]
    return [f"  {name:27} {count:>9}" for name, count in rows]
