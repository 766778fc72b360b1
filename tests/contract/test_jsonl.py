"""The JSONL store keeps the contract."""

from hypothesis import settings

from stepwell.testing.contract import Moving
from stepwell_stores.jsonl import JsonlStore

from .on_disk import DiskContract, DiskMachine


class TestJsonl(DiskContract, Moving):
    opens = JsonlStore


class JsonlMachine(DiskMachine):
    opens = JsonlStore


TestJsonlMachine = JsonlMachine.TestCase
TestJsonlMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
