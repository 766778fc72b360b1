"""The command line on encrypted stores, and on those with their large payloads beside them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import STORE, Result

Stepwell = Callable[..., Result]


def key_file(path: Path, **keys: int) -> str:
    lines = [f"{name}:{base64.b64encode(bytes([number] * 32)).decode()}\n" for name, number in keys.items()]
    path.write_text("".join(lines))
    path.chmod(0o600)
    return str(path)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the command line sets is undone."""
    for name in ("STEPWELL_KEYS", "STEPWELL_KEY_FILE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield
    for name in ("STEPWELL_KEYS", "STEPWELL_KEY_FILE"):
        os.environ.pop(name, None)


@pytest.fixture
def keys(here: Path, stepwell: Stepwell, app: str) -> str:
    """The file of keys of a store with a run that waits."""
    file = key_file(here / "keys", k1=1)
    made = stepwell("start", "ask", '"SECRET"', "--run-id", "r", "--app", app, "--store", STORE, "--key-file", file)
    assert (made.code, made.err) == (0, "")
    return file


def forget() -> None:
    """A process of its own would not have what `--key-file` of the one before set."""
    os.environ.pop("STEPWELL_KEY_FILE", None)


def test_a_store_is_read_with_its_keys(keys: str, stepwell: Stepwell, here: Path) -> None:
    shown = stepwell("show", "r", "--store", STORE, "--key-file", keys)
    assert (shown.code, "please look" in shown.out, '"SECRET"' in shown.out) == (0, True, True)
    assert stepwell("--key-file", keys, "--store", f"encrypted+{STORE}", "verify").code == 0
    assert stepwell("--key-file", keys, "--store", STORE, "doctor").code == 0
    forget()
    os.environ["STEPWELL_KEYS"] = Path(keys).read_text()
    assert stepwell("show", "r", "--store", f"encrypted+{STORE}").out == shown.out
    assert b"SECRET" not in (here / "runs.db").read_bytes()


@pytest.mark.parametrize("verb", [["show", "r"], ["show", "r", "--json"], ["show", "r", "--timeline"], ["verify"]])
def test_without_keys_one_line_says_so(verb: list[str], keys: str, stepwell: Stepwell) -> None:
    forget()
    found = stepwell(*verb, "--store", STORE)
    assert (found.code, found.out) == (2, "")
    assert found.err.count("\n") == 1
    assert "is encrypted with key 'k1'" in found.err
    assert "--key-file" in found.err


def test_a_list_shows_what_is_readable_and_no_garbage(keys: str, stepwell: Stepwell) -> None:
    forget()
    found = stepwell("list", "--store", STORE, "--json")
    (run,) = json.loads(found.out)
    assert (run["workflow"], run["waitingFor"]) == ("ask", ["review"])
    assert "stepwell-enc" not in found.out


def test_wrong_keys_are_told_by_their_id(keys: str, stepwell: Stepwell, here: Path) -> None:
    other = key_file(here / "other", k1=2)
    found = stepwell("show", "r", "--store", STORE, "--key-file", other)
    assert found.code == 2
    assert "is encrypted with another key 'k1' than the ring's" in found.err
    found = stepwell("verify", "--store", STORE, "--key-file", other)
    assert (found.code, "another key 'k1'" in found.err) == (2, True)
    Path(other).chmod(0o644)
    found = stepwell("show", "r", "--store", STORE, "--key-file", other)
    assert (found.code, "chmod 600" in found.err) == (2, True)
    found = stepwell("show", "r", "--store", STORE, "--key-file", "nosuch")
    assert (found.code, "nosuch: the keys can't be read" in found.err) == (2, True)


def test_rekey_leaves_the_new_key_alone(keys: str, stepwell: Stepwell, here: Path, app: str) -> None:
    both, new = key_file(here / "both", k2=2, k1=1), key_file(here / "new", k2=2)
    done = stepwell("rekey", "--store", STORE, "--key-file", both)
    assert done.code == 0
    assert "3 records, 1 index row of 1 run rewritten" in done.out
    assert "1 run read with key 'k2' alone" in done.out
    again = stepwell("rekey", "--json", "--store", STORE, "--key-file", both)
    assert json.loads(again.out) == {"key": "k2", "runs": 1, "rewritten": 0, "records": 0, "heads": 0}
    shown = stepwell("show", "r", "--store", STORE, "--key-file", new)
    assert (shown.code, '"SECRET"' in shown.out) == (0, True)
    verdict = '{"approved": true, "reviewer": "ada"}'
    driven = stepwell("resume", "r", "review", verdict, "--app", app, "--store", STORE, "--key-file", new)
    assert (driven.code, "completed" in driven.out) == (0, True)
    assert stepwell("show", "r", "--store", STORE, "--key-file", keys).code == 2


def test_rekey_encrypts_what_was_plain_when_it_is_allowed(stepwell: Stepwell, here: Path, app: str) -> None:
    stepwell("start", "ask", '"SECRET"', "--run-id", "r", "--app", app, "--store", STORE)
    file = key_file(here / "keys", k1=1)
    refused = stepwell("rekey", "--store", STORE, "--key-file", file)
    assert (refused.code, "?plain=allow" in refused.err) == (2, True)
    done = stepwell("rekey", "--store", f"{STORE}?plain=allow", "--key-file", file)
    assert (done.code, "3 records" in done.out) == (0, True)
    assert stepwell("verify", "--store", STORE, "--key-file", file).code == 0


def test_what_is_not_encrypted_has_no_keys(stepwell: Stepwell, app: str) -> None:
    stepwell("start", "ask", '"x"', "--run-id", "r", "--app", app, "--store", STORE)
    found = stepwell("rekey", "--store", STORE)
    assert (found.code, "the store is not encrypted: name it as encrypted+URL" in found.err) == (2, True)


def test_large_payloads_are_shown_verified_and_collected(stepwell: Stepwell, here: Path, app: str) -> None:
    url = f"offloaded+{STORE}?blobs=blobs&threshold=10"
    made = stepwell("start", "ask", '"x"', "--run-id", "r", "--app", app, "--store", url)
    assert made.code == 0
    assert "please look" in stepwell("show", "r", "--store", url).out
    (here / "blobs" / "run" / "gone").mkdir()
    (here / "blobs" / "run" / "gone" / "0.1.ab").write_bytes(b"left")
    (here / "blobs" / "notes").write_bytes(b"mine")
    found = stepwell("collect", "--store", url, "--grace", "0", "--json")
    assert json.loads(found.out) == {"removed": 1, "bytes": 4, "kept": 3, "unknown": 1}
    assert "0 blobs removed, 0 bytes; 3 kept" in stepwell("collect", "--store", url).out
    assert stepwell("verify", "--store", url).code == 0
    next((here / "blobs" / "run" / "r").iterdir()).unlink()
    damaged = stepwell("verify", "--store", url)
    assert (damaged.code, "its payload, blob run/r/" in damaged.out) == (4, True)
    plain = stepwell("collect", "--store", STORE)
    assert (plain.code, "the store has no blobs: name it as offloaded+URL" in plain.err) == (2, True)
    plain = stepwell("show", "r", "--store", STORE)
    assert (plain.code, "has its payload elsewhere" in plain.err) == (2, True)
