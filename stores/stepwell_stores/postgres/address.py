"""Where a Postgres store is: the parts of its URL that are stepwell's own, and those that the driver is given."""

from __future__ import annotations

import re
from typing import Any, NoReturn
from urllib.parse import unquote

from attrs import field, frozen

from stepwell.errors import StoreMisconfiguredError

from ..masking import check_authority

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as missing:
    raise StoreMisconfiguredError(
        f"a Postgres store needs psycopg 3, which can't be imported ({missing}); pip install 'stepwell[postgres]'"
    ) from missing

__all__ = ["SCHEMA", "Address", "address_of", "check_schema", "psycopg"]

SCHEMA = "stepwell"
"""The schema that holds the tables when none is named."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_YES = {"on": True, "off": False}

# What a connection of ours is made with, unless its URL says otherwise. A server that is gone is found out, whatever
# the network swallows.
_NETWORK: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "stepwell",
}

# Settings of a session, in milliseconds where they are times, that it is born with: a pooler between may refuse them,
# and then nothing breaks that they guard against.
_BOUNDS = {
    "statement_timeout": "30000",
    "lock_timeout": "10000",
    "idle_in_transaction_session_timeout": "60000",
    "default_transaction_isolation": r"read\ committed",
    # Plans are kept, and were made when the tables were small: no statement of an append has a use for a whole table.
    "enable_seqscan": "off",
    "jit": "off",
}


@frozen
class Address:
    """A server, a database and a schema.

    Attributes:
        given: what the driver is given, by libpq's names.
        schema: holds the tables of the store.
        prepare: statements may be kept on the server, and the session may be born with settings: not so behind a
            pooler that gives each transaction another session.
        listen: a session may listen for hints.
        connections: how many there may be at once, besides the one that listens.
        place: how messages name it: without a password.
    """

    given: dict[str, Any] = field(repr=False)
    schema: str
    prepare: bool
    listen: bool
    connections: int
    place: str

    def options(self) -> dict[str, Any]:
        """What a connection is made with."""
        wanted = {**_NETWORK, **self.given}
        if self.prepare:
            bounds = " ".join(f"-c {name}={value}" for name, value in _BOUNDS.items())
            wanted["options"] = f"{bounds} {wanted.get('options', '')}".strip()
        return wanted


def address_of(url: str) -> Address:
    """Read a store URL, or a libpq connection string.

    Raises:
        StoreMisconfiguredError: it is none; the text never has the password.
    """
    own: dict[str, str] = {}
    text = url
    if "://" in url:
        check_authority(url)
        text, _, query = url.partition("?")
        kept = []
        for part in query.split("&") if query else ():
            name, _, value = part.partition("=")
            if name not in ("schema", "prepare", "listen", "connections"):
                kept.append(part)
            elif name in own:
                _refuse(f"postgresql: {name} is given twice", "give it once")
            else:
                own[name] = unquote(value)
        text += "?" + "&".join(kept) if kept else ""
    problem, given = "", dict[str, Any]()
    try:
        given = conninfo_to_dict(text)
    except psycopg.Error as e:
        problem = _plain(e)
    if problem:  # not as a cause or context: the driver repeats a part of the URL
        _refuse(
            f"not the URL of a Postgres database: {problem}",
            "write 'postgresql://user@host:5432/database?schema=name'",
        )
    prepare, listen = _switch(own, "prepare"), _switch(own, "listen")
    schema = check_schema(own.get("schema", SCHEMA))
    count = own.get("connections", "10")
    if not count.isdecimal() or not 2 <= int(count) <= 1000:
        _refuse(f"postgresql: connections={count!r} is no number from 2 to 1000", "write connections=10")
    where = {name: str(given.get(name, "")) for name in ("user", "host", "port", "dbname")}
    server = where["host"] or str(given.get("hostaddr") or "localhost")
    place = f"postgresql://{where['user'] and where['user'] + '@'}{server}{where['port'] and ':' + where['port']}"
    place += f"/{where['dbname']}?schema={schema}"
    # behind a pooler that gives each transaction another session, nobody can listen
    return Address(given, schema, prepare, listen and prepare, int(count), place)


def check_schema(schema: str) -> str:
    """Refuse a schema name that is no plain identifier."""
    if not isinstance(schema, str) or not _IDENTIFIER.fullmatch(schema) or schema.lower().startswith("pg_"):
        _refuse(
            f"postgresql: {schema!r} can't be the schema of a store",
            "a name has letters, digits and _, at most 63, and does not begin with a digit or pg_",
        )
    return schema


def _switch(own: dict[str, str], name: str) -> bool:
    value = own.get(name, "on")
    if value not in _YES:
        _refuse(f"postgresql: {name}={value!r}", f"write {name}=on or {name}=off")
    return _YES[value]


def _plain(error: Exception) -> str:
    """What the driver says of an address, as far as it can't repeat a password."""
    text = str(error).strip()
    if text.startswith("invalid URI query parameter") or "invalid connection option" in text:
        return text
    return text.split(":", 1)[0].split('"', 1)[0].strip() or type(error).__name__


def _refuse(problem: str, remedy: str) -> NoReturn:
    raise StoreMisconfiguredError(f"{problem}; {remedy}")
