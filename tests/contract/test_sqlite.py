"""The SQLite store keeps the contract."""

from hypothesis import settings

from stepwell.testing.contract import Moving
from stepwell_stores.sqlite import SqliteStore

from .on_disk import DiskContract, DiskMachine


class TestSqlite(DiskContract, Moving):
    opens = SqliteStore


class SqliteMachine(DiskMachine):
    opens = SqliteStore


TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
