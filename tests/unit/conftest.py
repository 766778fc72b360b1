"""Folds are closed with the test that made them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .tools import OPENED


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()
