"""The tables of the page about durability, from what the crash harness measured (tests/crash/measured.json)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["controls_table", "declared_table", "measured", "survival_table", "where_measured"]

MEASURED = Path(__file__).parents[1] / "crash" / "measured.json"

URLS = {
    ("jsonl", "full"): "`file:`",
    ("jsonl", "off"): "`file:` with `?sync=off`",
    ("sqlite", "full"): "`sqlite:`",
    ("sqlite", "normal"): "`sqlite:` with `?sync=normal`",
    ("memory", "full"): "`memory:`",
    ("postgres", "full"): "`postgresql:`",
    ("postgres", "fsync=off"): "`postgresql:` with `fsync=off`",
    ("redis", "full"): "`redis:` with `appendfsync=always`",
    ("redis", "appendfsync=everysec"): "`redis:` with `appendfsync=everysec`",
    ("redis", "appendonly=no"): "`redis:` with `appendonly=no`",
    ("s3", "full"): "`s3:`",
}
UNITS = ("cuts", "kills", "deaths", "states", "pauses", "starts", "lines", "files", "faults", "cases")
DETAILS = {
    "blackhole": "connection that swallows everything",
    "cut": "connection cut after some bytes",
    "deaf": "answer to a write lost",
    "delay": "connection slow, now and then too slow",
    "zombie": "write arrives after its client was cut off",
    "backend": "server process of a connection killed",
    "kill": "server killed",
    "power": "power cut of the server, ext4",
    "restart": "server restarted",
}
"""What a setting of `connections` and `server_deaths` means."""

ON_SERVERS = ("postgres", "redis", "s3")
FAULTS = {
    "crowd": "killed with 16 threads at work",
    "kill_points": "killed at a write, sync, rename or removal",
    "crash_states": "killed or cut off on a simulated disk",
    "power_cuts": "power cut",
    "removals": "killed while runs are removed and their ids used again",
    "disk_faults": "disk trouble",
    "pauses": "owner stopped past its lease",
    "start_races": "8 processes at once",
    "store_calls": "calls that fail",
    "connections": "connection",
    "server_deaths": "server",
    "fuzz": "a line changed",
}


def measured() -> list[dict[str, Any]]:
    """The reports of all harnesses."""
    rows: list[dict[str, Any]] = json.loads(MEASURED.read_text("utf-8"))
    return rows


def setting_of(row: dict[str, Any]) -> str:
    """`full`, `off`, `normal` or one of a server's: the durability setting that a report is about."""
    if row["job"] == "server_deaths":
        return str(row["setting"]).partition(", ")[2] or "full"
    if row["job"] != "power_cuts":
        return "full"  # what is asked there does not hang on it
    return {"sync=off": "off", "synchronous=1": "normal"}.get(str(row.get("setting")), "full")


def amount(rows: Iterable[dict[str, Any]]) -> str:
    """How much was done, in the unit of the harness."""
    totals = Counter[str]()
    for row in rows:
        unit = next((unit for unit in UNITS if unit in row["counts"]), None)
        totals[unit or "faults"] += row["counts"][unit] if unit else sum(row["counts"].values())
    return ", ".join(f"{count:,} {unit}" for unit, count in totals.items())


def title(row: dict[str, Any]) -> str:
    """What was done to the store."""
    what = FAULTS[row["job"]]
    system = row.get("facts", {}).get("file system")
    if row["job"] == "disk_faults":
        return f"disk trouble: {row['setting']}"
    if row["job"] in ("connections", "server_deaths"):
        return DETAILS[str(row["setting"]).partition(",")[0]]
    if row["job"] == "kill_points" and row["store"] in ON_SERVERS:
        return "killed before, during or after a question to the server"
    if row["job"] == "fuzz" and "files" in row["counts"]:
        return "files changed"
    return f"{what}, {system}" if system else what


def survival_table() -> list[str]:
    """What each store and setting was put through, and what was wrong afterwards."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in measured():
        if not row.get("planted") and not row.get("skipped"):
            groups.setdefault((row["store"], setting_of(row), title(row)), []).append(row)
    lines = ["| Store | Fault | How often | Acknowledged records | Found wrong |", "|---|---|---|---|---|"]
    for (store, setting, what), rows in sorted(groups.items()):
        acks = sum(row["counts"].get("ack", 0) for row in rows)
        wrong = sum(row["violations"] for row in rows)
        bold = f"**{wrong:,}**" if wrong else "0"
        lines.append(f"| {URLS[store, setting]} | {what} | {amount(rows)} | {f'{acks:,}' if acks else ''} | {bold} |")
    return lines


def controls_table() -> list[str]:
    """Bugs that were planted, and who found them."""
    lines = ["| Planted bug | Store | Found by | Within | Findings |", "|---|---|---|---|---|"]
    rows = [row for row in measured() if row.get("planted") and not row.get("skipped")]
    for row in sorted(rows, key=lambda row: (row["planted"], row["store"], title(row))):
        found = f"{row['violations']:,}"
        lines.append(f"| {row['planted']} | {URLS[row['store'], 'full']} | {title(row)} | {amount([row])} | {found} |")
    return lines


def declared_table() -> list[str]:
    """What each setting declares, and whether a power cut agreed."""
    lines = ["| Store | `process_crash` | `power_loss` | Power cuts | Records lost in |", "|---|---|---|---|---|"]
    lines.append("| `memory:` | no | no | | |")
    for (store, setting), name in URLS.items():
        cuts = [
            row
            for row in measured()
            if _cuts_power(row) and row["store"] == store and setting_of(row) == setting
            if not row.get("planted") and not row.get("skipped")
        ]
        if cuts:
            declared = "yes" if all(row["facts"]["power loss declared"] for row in cuts) else "no"
            total, lost = (
                sum(row["counts"].get("cuts", row["counts"].get("deaths", 0)) for row in cuts),
                sum(row["violations"] for row in cuts),
            )
            lines.append(f"| {name} | yes | {declared} | {total} | {'none' if not lost else 'many of them'} |")
    return lines


def _cuts_power(row: dict[str, Any]) -> bool:
    return row["job"] == "power_cuts" or (row["job"] == "server_deaths" and row["setting"].startswith("power"))


def where_measured() -> list[str]:
    """Versions, and what could not be run."""
    rows = measured()
    versions = sorted(
        {f"Python {r['python']}, SQLite {r['sqlite']}, Linux {r['kernel']}" for r in rows if "python" in r}
    )
    skipped = [f"- Skipped: {title(row)} ({row['store']}): {row['skipped']}" for row in rows if row.get("skipped")]
    return [f"Measured on {'; '.join(versions)}.", *(["", *skipped] if skipped else [])]
