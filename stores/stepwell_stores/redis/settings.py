"""What a Redis server's settings are, which of them a store refuses, and what the others survive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepwell.errors import StoreMisconfiguredError
from stepwell.store import Durability

from ..outcomes import NotWrittenError
from .where import Where

__all__ = ["check", "durability", "read_settings"]

_OLDEST = (5, 0)
_INFO = ("server", "replication", "persistence", "memory")
_CONFIG = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy", "maxmemory")
_WANTED = ("redis_version", "valkey_version", "redis_mode", "role", "master_host", "master_port", "loading")


def read_settings(ask: Callable[..., list[Any]]) -> dict[str, Any]:
    """What the server says of itself. What it may not be asked is left out; numbers stay text."""
    answers = ask(*[("INFO", section) for section in _INFO], *[("CONFIG", "GET", name) for name in _CONFIG])
    found: dict[str, Any] = {}
    told: dict[str, str] = {}
    for text in answers[: len(_INFO)]:
        for line in (text or b"").decode(errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon:
                told[name] = value
    found |= {name: told[name] for name in _WANTED if name in told}
    if "maxmemory_policy" in told:  # which is known also where CONFIG may not be asked
        found["maxmemory-policy"] = told["maxmemory_policy"]
    for name, answer in zip(_CONFIG, answers[len(_INFO) :], strict=True):
        pairs = _pairs(answer)
        if name in pairs:
            found[name] = pairs[name]
    if "aof_enabled" in told:
        found.setdefault("appendonly", "yes" if told["aof_enabled"] == "1" else "no")
    return found


def _pairs(answer: Any) -> dict[str, str]:
    """What CONFIG GET gave, as RESP 2 or 3 has it."""
    if isinstance(answer, Mapping):
        items: Sequence[Any] = [part for pair in answer.items() for part in pair]
    else:
        items = answer or []
    texts = [part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in items]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def check(settings: Mapping[str, Any], where: Where) -> None:
    """Refuse a server on which a store can't be kept.

    Raises:
        StoreMisconfiguredError: the text says why, and what to do.
        NotWrittenError: it is starting.
    """
    version = settings.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < _OLDEST:
        _refuse(where, f"Redis {version} is too old", "use Redis 5 or newer, or Valkey")
    if settings.get("loading", "0") != "0":
        raise NotWrittenError(f"{where.name}: it is starting, and loads its data; try again")
    if settings.get("redis_mode") == "sentinel":
        _refuse(where, "it is a sentinel, which keeps no data", "give the store a client that asks it for the primary")
    if settings.get("role", "master") != "master":
        primary = f"{settings.get('master_host')}:{settings.get('master_port')}"
        _refuse(where, "it is a replica, which takes no writes and may be behind", f"name its primary, {primary}")
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy != "noeviction" and where.evicts != "allow":
        _refuse(
            where,
            f"it throws keys away when its memory is full (maxmemory-policy {policy}), and runs with them",
            "set maxmemory-policy to noeviction, or take that upon you by evicts=allow",
        )
    if settings.get("appendonly", "yes") != "yes" and where.volatile != "allow":
        _refuse(
            where,
            "it keeps no append-only file (appendonly no), so what is acknowledged ends with it",
            "set appendonly to yes, and appendfsync to always, or take that upon you by volatile=allow",
        )


def durability(settings: Mapping[str, Any], where: Where) -> Durability:
    """What the settings survive. What can't be read is not known, and never taken for good."""
    process: bool | None = None
    power: bool | None = None
    advice = ""
    if "appendonly" not in settings or "appendfsync" not in settings:
        advice = (
            "its settings can't be read, so nobody can tell what it survives; allow CONFIG GET, or ask its operator"
        )
    elif settings["appendonly"] != "yes":
        process = power = False
        advice = "it keeps no append-only file, so all since its last snapshot is lost when it ends; set appendonly yes"
    else:
        # `everysec` may keep what was acknowledged in memory for two seconds, while the last sync is under way.
        process = settings["appendfsync"] != "everysec"
        power = settings["appendfsync"] == "always" and settings.get("no-appendfsync-on-rewrite") == "no"
        if not power:
            wanted = "appendfsync always, and no-appendfsync-on-rewrite no"
            advice = f"what was acknowledged in the last seconds can be lost in a crash; set {wanted}"
    policy = settings.get("maxmemory-policy")
    if policy is not None and policy.startswith("allkeys"):
        process = power = False
        advice = f"it throws keys away when its memory is full (maxmemory-policy {policy}); set it to noeviction"
    told = {"store": "redis", "server": where.name, **settings}
    return Durability(process, power, failover=False, settings={**told, "advice": advice} if advice else told)


def _refuse(where: Where, problem: str, remedy: str) -> None:
    raise StoreMisconfiguredError(f"{where.name}: {problem}; {remedy}")
