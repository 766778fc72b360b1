"""The tables of the Postgres store, how they are made and brought to this version, and what a server must be."""

# ruff: noqa: S608 - statements are put together from constants and a checked schema name; every value is a parameter

from __future__ import annotations

from typing import Any

from stepwell.errors import NewerFormatError, StoreMisconfiguredError

from .session import Session

__all__ = ["SCHEMA_VERSION", "check_server", "check_version", "prepare_tables"]

_OLDEST = 130000

# {0} is the schema. Text is compared by code points, as in every other store. What a run waits for and its tags are
# lists in JSON, whose members two side tables hold for lists of runs, kept by triggers: as their JSON literals, since
# a text of Postgres has no place for NUL, and cut where they are longer than an index takes. What a deleted run leaves
# is its fence and its age, and how many bytes of records went when the records took how many on the disk.
_VERSION_1 = """
CREATE TABLE "{0}".stepwell_schema (version integer NOT NULL);

CREATE TABLE "{0}".stepwell_runs (
    run_id text COLLATE "C" PRIMARY KEY,
    incarnation integer NOT NULL,
    next_seq integer NOT NULL,
    fence bigint NOT NULL,
    born bigint NOT NULL,
    closed boolean NOT NULL,
    status text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    updated bigint NOT NULL,
    due bigint,
    waiting text COLLATE "C" NOT NULL,
    tags text COLLATE "C" NOT NULL,
    blocked text COLLATE "C",
    blocked_by text COLLATE "C",
    owner text COLLATE "C",
    lease_until bigint,
    lease_token text COLLATE "C"
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX stepwell_runs_created ON "{0}".stepwell_runs (created, run_id);
CREATE INDEX stepwell_runs_status ON "{0}".stepwell_runs (status, created, run_id);
CREATE INDEX stepwell_runs_workflow ON "{0}".stepwell_runs (workflow, created, run_id);
CREATE INDEX stepwell_runs_due ON "{0}".stepwell_runs (due, run_id)
    WHERE NOT closed AND lease_until IS NULL AND blocked_by IS NULL AND due IS NOT NULL;
CREATE INDEX stepwell_runs_kinds ON "{0}".stepwell_runs (blocked_by, due, run_id)
    WHERE NOT closed AND lease_until IS NULL AND blocked_by IS NOT NULL AND due IS NOT NULL;
CREATE INDEX stepwell_runs_blocked ON "{0}".stepwell_runs (created, run_id) WHERE blocked_by IS NOT NULL;
CREATE INDEX stepwell_runs_leased ON "{0}".stepwell_runs (created, run_id) WHERE lease_until IS NOT NULL;
CREATE INDEX stepwell_runs_lapsing ON "{0}".stepwell_runs (lease_until, run_id) WHERE lease_until IS NOT NULL;
CREATE INDEX stepwell_runs_closed ON "{0}".stepwell_runs (workflow, updated, run_id) WHERE closed;

CREATE TABLE "{0}".stepwell_events (
    run_id text COLLATE "C" NOT NULL,
    incarnation integer NOT NULL,
    seq integer NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (run_id, incarnation, seq)
);
ALTER TABLE "{0}".stepwell_events ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE "{0}".stepwell_attempts (
    run_id text COLLATE "C" NOT NULL,
    attempt_id text COLLATE "C" NOT NULL,
    incarnation integer NOT NULL,
    seq integer NOT NULL,
    PRIMARY KEY (run_id, attempt_id)
);

CREATE TABLE "{0}".stepwell_deleted (
    run_id text COLLATE "C" PRIMARY KEY,
    fence bigint NOT NULL,
    created bigint NOT NULL,
    freed bigint NOT NULL,
    taken bigint NOT NULL
);
CREATE INDEX stepwell_deleted_freed ON "{0}".stepwell_deleted (taken) WHERE freed > 0;

CREATE TABLE "{0}".stepwell_tags (
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, value, created, run_id)
);
CREATE INDEX stepwell_tags_names ON "{0}".stepwell_tags (name, created, run_id);
CREATE INDEX stepwell_tags_run ON "{0}".stepwell_tags (run_id);
CREATE TABLE "{0}".stepwell_waits (
    signal text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (signal, created, run_id)
);
CREATE INDEX stepwell_waits_run ON "{0}".stepwell_waits (run_id);

CREATE FUNCTION "{0}".stepwell_key(literal text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN length(literal) <= 600 THEN literal
        ELSE left(literal, 500) || encode(sha256(convert_to(literal, 'UTF8')), 'hex') END $$;

CREATE FUNCTION "{0}".stepwell_tagged() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM "{0}".stepwell_tags WHERE run_id = OLD.run_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO "{0}".stepwell_tags
            SELECT "{0}".stepwell_key((t->0)::text), "{0}".stepwell_key((t->1)::text), NEW.created, NEW.run_id
            FROM json_array_elements(NEW.tags::json) AS t;
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION "{0}".stepwell_waiting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM "{0}".stepwell_waits WHERE run_id = OLD.run_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO "{0}".stepwell_waits
            SELECT DISTINCT "{0}".stepwell_key((w->'signal')::text), NEW.created, NEW.run_id
            FROM json_array_elements(NEW.waiting::json) AS w;
    END IF;
    RETURN NULL;
END $$;
-- A create that waited for a delete does not see in its own snapshot which fences were given.
CREATE FUNCTION "{0}".stepwell_fenced() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT FROM "{0}".stepwell_deleted d WHERE d.run_id = NEW.run_id AND d.fence >= NEW.fence) THEN
        RAISE EXCEPTION 'this fence was given to a run that was deleted' USING ERRCODE = 'SW001';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER stepwell_runs_fenced AFTER INSERT ON "{0}".stepwell_runs
    FOR EACH ROW EXECUTE FUNCTION "{0}".stepwell_fenced();
CREATE TRIGGER stepwell_tags_inserted AFTER INSERT ON "{0}".stepwell_runs
    FOR EACH ROW WHEN (NEW.tags <> '[]') EXECUTE FUNCTION "{0}".stepwell_tagged();
CREATE TRIGGER stepwell_tags_updated AFTER UPDATE ON "{0}".stepwell_runs
    FOR EACH ROW WHEN (OLD.tags <> NEW.tags OR (OLD.created <> NEW.created AND NEW.tags <> '[]'))
    EXECUTE FUNCTION "{0}".stepwell_tagged();
CREATE TRIGGER stepwell_tags_deleted AFTER DELETE ON "{0}".stepwell_runs
    FOR EACH ROW WHEN (OLD.tags <> '[]') EXECUTE FUNCTION "{0}".stepwell_tagged();
CREATE TRIGGER stepwell_waits_inserted AFTER INSERT ON "{0}".stepwell_runs
    FOR EACH ROW WHEN (NEW.waiting <> '[]') EXECUTE FUNCTION "{0}".stepwell_waiting();
CREATE TRIGGER stepwell_waits_updated AFTER UPDATE ON "{0}".stepwell_runs
    FOR EACH ROW WHEN (OLD.waiting <> NEW.waiting OR (OLD.created <> NEW.created AND NEW.waiting <> '[]'))
    EXECUTE FUNCTION "{0}".stepwell_waiting();
CREATE TRIGGER stepwell_waits_deleted AFTER DELETE ON "{0}".stepwell_runs
    FOR EACH ROW WHEN (OLD.waiting <> '[]') EXECUTE FUNCTION "{0}".stepwell_waiting();
"""

# Runs that went to another store, and those that come from one: their records are there already, but no row of theirs.
# A row of incarnation -1 is held by who takes an id for a run that is to come, and never committed.
_VERSION_2 = """
ALTER TABLE "{0}".stepwell_deleted ADD COLUMN departure text COLLATE "C", ADD COLUMN arrival text COLLATE "C";
CREATE INDEX stepwell_deleted_arriving ON "{0}".stepwell_deleted (run_id) WHERE arrival IS NOT NULL;

CREATE OR REPLACE FUNCTION "{0}".stepwell_fenced() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.incarnation >= 0 AND EXISTS (SELECT FROM "{0}".stepwell_deleted d WHERE d.run_id = NEW.run_id
            AND (d.fence >= NEW.fence OR d.departure IS NOT NULL OR d.arrival IS NOT NULL)) THEN
        RAISE EXCEPTION 'this fence was given to a run that was deleted, or a run of this id is elsewhere'
            USING ERRCODE = 'SW001';
    END IF;
    RETURN NULL;
END $$;
"""

_MIGRATIONS = (_VERSION_1, _VERSION_2)
"""What brings the tables from version 0, 1, ... to the next. Never changed once released, only added to."""

SCHEMA_VERSION = len(_MIGRATIONS)

_SERVER = """SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean,
    current_setting('server_encoding'), current_setting('server_version_num')::integer, version()"""
# By rows of the catalogue: what is looked up by name is remembered from before the lock.
_THERE = """SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = 'stepwell_schema')"""
_LOCKED = """BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = 0;
    SET LOCAL synchronous_commit = on; SELECT pg_advisory_xact_lock(1937007984, hashtext('{0}'))"""


def check_server(session: Session, place: str) -> None:
    """See that histories can be kept there.

    Raises:
        StoreMisconfiguredError: a replica, read-only, another encoding, or too old.
    """
    found = session.one(_SERVER)
    assert found is not None
    # text comes as bytes from a database that says nothing of its encoding
    values: list[Any] = [value.decode() if isinstance(value, bytes) else value for value in found]
    replica, read_only, encoding, number, version = values
    if replica:
        raise StoreMisconfiguredError(
            f"{place} is a replica (pg_is_in_recovery), which can't be written and may lag; name the primary (with "
            "several hosts, target_session_attrs=read-write finds it)"
        )
    if read_only:
        raise StoreMisconfiguredError(
            f"{place} is read-only (transaction_read_only is on); use a role or a server that may write"
        )
    if encoding != "UTF8":
        raise StoreMisconfiguredError(f"{place}: the database is encoded in {encoding}; make one with ENCODING 'UTF8'")
    if number < _OLDEST:
        raise StoreMisconfiguredError(f"{place}: {version.split(' on ')[0]} is too old; use 13 or newer")


def prepare_tables(session: Session, schema: str, place: str, must_exist: bool) -> None:
    """Make the tables or bring them to this version, in one transaction; whoever comes second finds it done.

    Raises:
        StoreMisconfiguredError: there are none and they must be there.
        NewerFormatError: they are of a newer stepwell.
    """
    version = _version(session, schema)
    if version != SCHEMA_VERSION:
        if version is None and must_exist:
            raise StoreMisconfiguredError(
                f"no store at {place}: its schema has no tables of stepwell; check the URL, or start a run to make them"
            )
        if version is None or version < SCHEMA_VERSION:
            _migrate(session, schema)
            version = _version(session, schema) or 0
        check_version(version, place)


def _version(session: Session, schema: str) -> int | None:
    there = session.one(_THERE, (schema,))
    if there is None or not there[0]:
        return None
    found = session.one(f'SELECT max(version) FROM "{schema}".stepwell_schema')
    return None if found is None or found[0] is None else int(found[0])


def _migrate(session: Session, schema: str) -> None:
    raw = session.raw
    try:
        raw.execute(_LOCKED.format(schema).encode())
        version = _version(session, schema)
        if session.one("SELECT FROM pg_namespace WHERE nspname = %s", (schema,)) is None:
            raw.execute(f'CREATE SCHEMA "{schema}"'.encode())
        for script in _MIGRATIONS[version or 0 :]:
            raw.execute(script.format(schema).encode())
        if version is None:
            session.run(f'INSERT INTO "{schema}".stepwell_schema VALUES (%s)', (SCHEMA_VERSION,))
        elif version < SCHEMA_VERSION:
            session.run(f'UPDATE "{schema}".stepwell_schema SET version = %s', (SCHEMA_VERSION,))
        raw.execute("COMMIT")
    except BaseException:
        session.rollback()
        raise


def check_version(version: int, place: str) -> None:
    """See that the tables are of this library's version, as a transaction finds them.

    Raises:
        NewerFormatError: a newer stepwell made them, or has changed them meanwhile.
    """
    if version != SCHEMA_VERSION:
        raise NewerFormatError(
            f"{place}: has tables of version {version}, and this stepwell knows {SCHEMA_VERSION}; upgrade stepwell",
            place=place,
        )
