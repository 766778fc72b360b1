"""What the tests of the crash harnesses share."""

from __future__ import annotations

import pytest

_FIXTURES = {"postgres": "postgres_server", "redis": "valkey_server", "s3": "s3_server"}


@pytest.fixture
def server(request: pytest.FixtureRequest, store: str) -> str:
    """The kind of store that a test is about; where its server is not to be had, the test says why."""
    if store in _FIXTURES:
        request.getfixturevalue(_FIXTURES[store])
    return store
