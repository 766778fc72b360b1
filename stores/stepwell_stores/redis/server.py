"""A Redis server under connections of our own, or of a client that the program has: scripts, and what it tells.

A script is sent once. The driver's own retries are passed by, since only the store knows what may be sent twice.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from inspect import iscoroutinefunction
from typing import Any

from stepwell.errors import ClosedError, InvalidInputError, NewerFormatError, StoreMisconfiguredError

from ..liveness import ForkAware, watch_forks
from ..outcomes import AmbiguousError, NotWrittenError
from .errors import meaning, newer, refuse_away
from .prelude import Script
from .settings import check, read_settings
from .where import Where

__all__ = ["Server", "check_client"]

_STALE = 1.0  # seconds after which a connection may have been closed by the server, or by what lies between
_INSTALL = "the Redis store needs the driver redis-py: pip install 'stepwell[redis]'"


def driver() -> Any:
    """The driver.

    Raises:
        StoreMisconfiguredError: it is not installed.
    """
    try:
        import redis
    except ImportError as e:
        raise StoreMisconfiguredError(_INSTALL) from e
    return redis


def check_client(client: Any) -> None:
    """Refuse what is no client that one can wait for.

    Raises:
        InvalidInputError: it names what is wanted.
    """
    one = hasattr(client, "connection_pool") or hasattr(client, "get_node_from_key")
    if not one or iscoroutinefunction(getattr(client, "execute_command", None)):
        raise InvalidInputError(
            f"client must be a redis.Redis or redis.RedisCluster, got {type(client).__module__}."
            f"{type(client).__qualname__}; write RedisStore(client=redis.Redis(...)), or give a URL"
        )


class Server(ForkAware):
    """Runs scripts on a server.

    Args:
        where: the server.
        client: a client that the program has, which is used and never closed; None: connections of our own.
        must_exist: refuse keys that nobody has made yet.
    """

    def __init__(self, where: Where, client: Any = None, *, must_exist: bool = False) -> None:
        self.where = where
        self._client, self._must_exist = client, must_exist
        self._pid = os.getpid()
        self._meta = f"{{{where.prefix}}}:meta"
        self._begin()
        self._closed = False
        watch_forks(self)

    def _begin(self) -> None:
        self._pool: Any = None
        self._free: list[tuple[float, Any]] = []
        self._opening = threading.Lock()
        self._checked = False

    # ---- connections

    def pool(self) -> Any:
        """Where connections come from."""
        if self._client is not None:
            if os.getpid() != self._pid:
                raise StoreMisconfiguredError(
                    f"{self.where.name}: this process was forked after the store got the program's client; make "
                    "client and store in the child, or give the store a URL"
                )
            if hasattr(self._client, "get_node_from_key"):  # of a cluster
                node = self._client.get_node_from_key(self._meta)
                return self._client.get_redis_connection(node).connection_pool
            return self._client.connection_pool
        with self._opening:
            if self._pool is None:
                redis = driver()
                never = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
                self._pool = redis.Redis(**self.where.options, protocol=2, retry=never).connection_pool
            return self._pool

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        """A connection to a server that was looked at, open as far as can be told.

        When its use does not end well it is closed. An answer may still be on the way, which the next command would
        take for its own; or the server takes no writes any more, and another one may have its name now.
        """
        pool = None if self._client is None else self.pool()
        connection = self._own() if pool is None else pool.get_connection()
        try:
            if not self._checked or not _connected(connection):
                connection.connect()
                self._check(connection)
            yield connection
        except BaseException:
            connection.disconnect()
            raise
        finally:
            if pool is not None:
                pool.release(connection)
            elif self._closed:
                connection.disconnect()
            elif _connected(connection):
                self._free.append((time.monotonic(), connection))

    def _own(self) -> Any:
        """One of our connections that nobody uses, or a new one that is still to be connected."""
        used, connection = 0.0, None
        with contextlib.suppress(IndexError):
            used, connection = self._free.pop()
        if connection is None:
            pool = self.pool()  # which would count what it makes, and never hear of those that are closed
            return pool.connection_class(**pool.connection_kwargs)
        if time.monotonic() - used > _STALE:
            try:
                ended = connection.can_read()  # that it was closed: nothing else is said without being asked
            except driver().RedisError:
                ended = True
            if ended:
                connection.disconnect()
        return connection

    def _drop_free(self) -> None:
        """Close what nobody uses."""
        with contextlib.suppress(IndexError):
            while True:
                self._free.pop()[1].disconnect()

    # ---- scripts

    def run(self, script: Script, *values: Any) -> list[Any]:
        """Run a script, once.

        Raises:
            NotWrittenError: it was not run.
            AmbiguousError: it may have been run.
            StoreError, CorruptHistoryError: it was not run to its end, and changed nothing.
            RunMovedError, RunArrivingError: the run that it names is not here, and it is known where it is.
        """
        self.check_open()
        answer = self._send([("EVALSHA", script.sha, 1, self._meta, *values)], script)[0]
        if answer[0] == b"format":
            raise NewerFormatError(newer(answer[1], self.where.name), place=self.where.name)
        if answer[0] == b"away":
            refuse_away(str(values[1]), *answer[1:])
        found: list[Any] = answer
        return found

    def again(self, script: Script, *values: Any) -> list[Any]:
        """Run a script that may be run twice: once more, when the connection was lost.

        Raises:
            StoreUnavailableError: lost again.
            StoreError, CorruptHistoryError: as `run`.
        """
        for _ in range(2):
            with contextlib.suppress(AmbiguousError):
                return self.run(script, *values)
        return self.run(script, *values)

    def ask(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands that change nothing; what the server refuses is None."""
        return self._send(commands)

    def _send(self, commands: Sequence[Sequence[Any]], script: Script | None = None) -> list[Any]:
        redis = driver()
        sent = False
        try:
            with self._connection() as connection:
                sent = True
                if script is not None:
                    return [self._evaluate(connection, script, commands[0], redis)]
                return self._exchange(connection, commands, redis)
        except (redis.RedisError, OSError) as error:
            found = meaning(error, self.where.name, sent=sent)
            if isinstance(found, (NotWrittenError, AmbiguousError)):
                self._checked = False  # it may be another server that answers next
                self._drop_free()
            if type(error).__name__ in ("MovedError", "AskError") and hasattr(self._client, "nodes_manager"):
                with contextlib.suppress(redis.RedisError):
                    self._client.nodes_manager.initialize()
            raise found from error

    @staticmethod
    def _evaluate(connection: Any, script: Script, command: Sequence[Any], redis: Any) -> Any:
        connection.send_command(*command)
        try:
            return connection.read_response(disable_decoding=True)
        except redis.exceptions.NoScriptError:  # so it was not run
            connection.send_command("EVAL", script.text, *command[2:])
            return connection.read_response(disable_decoding=True)

    @staticmethod
    def _exchange(connection: Any, commands: Sequence[Sequence[Any]], redis: Any) -> list[Any]:
        for command in commands:
            connection.send_command(*command)
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(connection.read_response(disable_decoding=True))
            except redis.exceptions.BusyLoadingError:
                raise
            except redis.ResponseError:
                answers.append(None)
        return answers

    # ---- what it says of itself

    def _check(self, connection: Any) -> None:
        redis = driver()
        settings = read_settings(lambda *commands: self._exchange(connection, commands, redis))
        check(settings, self.where)
        connection.send_command("HGET", self._meta, "format")
        version = connection.read_response(disable_decoding=True)
        if version is None and self._must_exist:
            raise StoreMisconfiguredError(
                f"no store at {self.where.name}: it has no keys there; check database and prefix, or start a run"
            )
        if version not in (None, b"1"):
            raise NewerFormatError(newer(version, self.where.name), place=self.where.name)
        self._must_exist = self._must_exist and version is None
        self._checked = True

    def settings(self) -> dict[str, Any]:
        """What the server's live settings are."""
        self.check_open()
        return read_settings(self.ask)

    # ---- the end, and forks

    def check_open(self) -> None:
        """Raise ClosedError after `close`."""
        if self._closed:
            raise ClosedError(f"the store {self.where.name} is closed")

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Close the connections that are ours."""
        self._closed = True
        self._drop_free()

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections to the parent."""
        for _, connection in self._free:
            with contextlib.suppress(OSError):
                connection.disconnect()  # here it only closes this process's copy
        self._begin()


def _connected(connection: Any) -> bool:
    """Whether it has a socket, as far as this process knows; not all versions of the driver have a name for that."""
    return getattr(connection, "_sock", None) is not None
