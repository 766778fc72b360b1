"""No message repeats a password, nor what hangs on it: also where it has characters that end a part of a URL."""

from __future__ import annotations

import pickle
import traceback
from contextlib import closing

import pytest

from stepwell.errors import StoreMisconfiguredError
from stepwell_stores import masked, open_store

SECRET = "sEcr3t"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}/a@h:5432/d",
        f"postgresql://u:{SECRET}/d",
        f"postgresql://u:{SECRET}?a@h/d",
        f"postgresql://u:{SECRET}#a@h/d",
        f"postgresql://u:{SECRET}%zz@h/d",
        f"postgresql://u:12345/{SECRET}@h/d",
        f"postgresql://u@h:{SECRET}/d",
        f"redis://u:{SECRET}?x@h/0",
        f"redis://u:{SECRET}/x@h/0",
        f"redis://:123/{SECRET}@h/0",
        f"redis://u:{SECRET}[@h/0",
        f"s3://k:{SECRET}/x@bucket/prefix",
        f"s3://k:{SECRET}@bucket/prefix",
        f"offloaded+sqlite:///x.db?blobs=redis://k:{SECRET}@h/0",
    ],
)
def test_a_url_that_is_refused_is_nowhere_repeated_with_its_password(url: str) -> None:
    with pytest.raises(StoreMisconfiguredError) as caught, closing(open_store(url)) as store:
        store.head("r")
    error: BaseException | None = caught.value
    assert SECRET not in "".join(traceback.format_exception(caught.value)).replace(repr(url), "")
    while error is not None:
        assert SECRET not in f"{error} {error!r} {pickle.dumps(error)!r}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://u:{SECRET}/d", "postgresql://u:***/d"),
        (f"postgresql://u:{SECRET}/a@h/d", "postgresql://u:***@h/d"),
        (f"postgresql://u@h/d?passwd={SECRET}&x=1", "postgresql://u@h/d?passwd=***&x=1"),
        ("postgresql://h1:5432,h2:5433/d", "postgresql://h1:5432,h2:5433/d"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("sqlite:////a:b/c.db", "sqlite:////a:b/c.db"),
    ],
)
def test_a_url_is_shown_without_its_password_and_otherwise_as_it_is(url: str, shown: str) -> None:
    assert shown == masked(url)


@pytest.mark.parametrize("url", ["postgresql://h1:5432,h2:5433/d", "postgresql://[::1]:5432/d", "postgresql:///d"])
def test_hosts_and_ports_of_all_kinds_are_taken(url: str) -> None:
    open_store(url).close()
