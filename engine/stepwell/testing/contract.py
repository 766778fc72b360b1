"""The conformance suite of the store port, for everyone who writes a store.

Bases to subclass in a test module: `StoreContract` checks the rules one by one, `Persistence` what is there after
reopening (a store that forgets, as one in memory does, leaves it out), `Moving` what a store does whose runs can be
moved (see `stepwell.moves`; a store need not), and `StoreMachine` lets Hypothesis look for an
order of calls after which store and model disagree:

    class TestMine(StoreContract, Persistence):
        @pytest.fixture(autouse=True)
        def _place(self, tmp_path):
            self.path, self.clock = tmp_path / "runs", ManualClock()

        def make_store(self):
            return MyStore(self.path, clock=self.clock)

        def advance(self, seconds):
            self.clock.advance(seconds)

        def reopen(self, store):
            store.close()
            return self.make_store()

    class MyMachine(StoreMachine): ...   # the same three methods
    TestMyMachine = MyMachine.TestCase

Needs pytest and hypothesis, which nothing else in `stepwell.testing` imports.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}_{part}"
        for part in ("bench", "histories", "leases", "lists", "machine", "moving", "upkeep", "watching")
    )
)

from .contract_bench import ManualClock, a_head, a_record, a_start  # noqa: E402 - pytest must know them first
from .contract_histories import Histories, Outside  # noqa: E402 - pytest must know them first
from .contract_leases import Due, Incarnations, Leases  # noqa: E402 - pytest must know them first
from .contract_lists import Concurrency, Lists, Persistence  # noqa: E402 - pytest must know them first
from .contract_machine import StoreMachine  # noqa: E402 - pytest must know them first
from .contract_moving import Moving  # noqa: E402 - pytest must know them first
from .contract_upkeep import Upkeep  # noqa: E402 - pytest must know them first
from .contract_watching import Watching  # noqa: E402 - pytest must know them first

__all__ = ["ManualClock", "Moving", "Persistence", "StoreContract", "StoreMachine", "a_head", "a_record", "a_start"]


class StoreContract(Histories, Outside, Leases, Incarnations, Due, Lists, Upkeep, Watching, Concurrency):
    """The rules of the port, one test each. Give `make_store` and `advance`."""
