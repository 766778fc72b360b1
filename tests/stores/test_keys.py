"""Key rings: where they come from, what a wrong one is told, and that no key is ever shown."""

from __future__ import annotations

import base64
import copy
import os
import pickle
import traceback
from pathlib import Path

import pytest

from stepwell.errors import InvalidInputError, StoreMisconfiguredError
from stepwell_stores.wrapping import Key, KeyRing

ONE, TWO = bytes(range(32)), bytes(range(1, 33))


def text(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


def test_the_first_key_is_the_current_one() -> None:
    assert KeyRing({"b": ONE, "a": TWO}).current.id == "b"
    assert KeyRing({"b": ONE, "a": TWO}, current="a").current.id == "a"
    assert KeyRing.parse(f"b:{text(ONE)},a:{text(TWO)}").current.id == "b"


def test_a_ring_is_read_from_text_with_lines_commas_and_remarks() -> None:
    ring = KeyRing.parse(f"# the keys\n k2:{text(TWO)} , # since May\n\nk1:{text(ONE)}\n")
    assert list(ring.keys) == ["k2", "k1"]
    assert ring.current.label == Key("k2", TWO).label
    urlsafe = base64.urlsafe_b64encode(b"\xff" * 32).decode()
    assert KeyRing.parse(f"k:{urlsafe}").current.label == Key("k", b"\xff" * 32).label


def test_a_ring_is_read_from_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"k1:{text(ONE)}\n")
    file.chmod(0o640)
    with pytest.raises(StoreMisconfiguredError, match="others may read the keys in it; chmod 600"):
        KeyRing.from_file(file)
    file.chmod(0o600)
    assert KeyRing.from_file(file).current.id == "k1"
    with pytest.raises(StoreMisconfiguredError, match="can't be read: No such file"):
        KeyRing.from_file(tmp_path / "none")
    with pytest.raises(StoreMisconfiguredError, match="Is a directory"):
        KeyRing.from_file(tmp_path)
    file.write_bytes(b"\xff\xfe" * 20)
    with pytest.raises(StoreMisconfiguredError, match="is no file of keys"):
        KeyRing.from_file(file)


def test_the_environment_gives_keys_or_a_file_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPWELL_KEYS", raising=False)
    monkeypatch.delenv("STEPWELL_KEY_FILE", raising=False)
    with pytest.raises(StoreMisconfiguredError, match="no keys are given: set STEPWELL_KEYS"):
        KeyRing.from_environment()
    file = tmp_path / "keys"
    file.write_text(f"filed:{text(ONE)}")
    file.chmod(0o600)
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(file))
    assert KeyRing.from_environment().current.id == "filed"
    monkeypatch.setenv("STEPWELL_KEYS", f"given:{text(TWO)}")
    assert KeyRing.from_environment().current.id == "given"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("", "has no keys"),
        ("  # nothing\n", "has no keys"),
        ("justtext", "entry 1 is not ID:BASE64"),
        (f"k 1:{text(ONE)}", "entry 1 is not ID:BASE64"),
        (f"{'k' * 33}:{text(ONE)}", "entry 1 is not ID:BASE64"),
        ("k1:not base64!", "entry 1, 'k1', is not 32 bytes"),
        (f"k1:{text(ONE[:16])}", "entry 1, 'k1', is not 32 bytes"),
        (f"k1:{text(ONE)},k1:{text(TWO)}", "key 'k1' is there twice"),
        (f"k1:{text(ONE)},k2:short", "entry 2, 'k2', is not 32 bytes"),
    ],
)
def test_wrong_text_is_told_by_its_number_and_never_shown(wrong: str, words: str) -> None:
    with pytest.raises(StoreMisconfiguredError) as raised:
        KeyRing.parse(wrong, "STEPWELL_KEYS")
    told = "".join(traceback.format_exception(raised.value))
    assert words in raised.value.message
    assert raised.value.message.startswith("STEPWELL_KEYS")
    assert text(ONE) not in told
    assert "short" not in raised.value.message


@pytest.mark.parametrize(
    "wrong",
    [{}, {"k": b"short"}, {"k": "x" * 32}, {"": ONE}, {"a b": ONE}, {3: ONE}, [("k", ONE)]],
    ids=str,
)
def test_what_is_no_ring_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInputError):
        KeyRing(wrong)  # type: ignore[arg-type]


def test_a_current_key_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'c' is not in the ring, which has a, b"):
        KeyRing({"a": ONE, "b": TWO}, current="c")


def test_a_function_is_asked_when_it_is_needed_and_again_for_a_key_that_is_not_known() -> None:
    asked: list[int] = []
    vault = {"k1": ONE}

    def ask() -> dict[str, bytes]:
        asked.append(1)
        return dict(vault)

    ring = KeyRing(ask)
    assert (asked, repr(ring)) == ([], "KeyRing(not asked for yet)")
    assert ring.current.id == "k1"
    assert ring.find("k1") is not None
    assert len(asked) == 1
    assert ring.find("k2") is None
    vault = {"k2": TWO, **vault}
    assert ring.find("k2") is not None
    assert (ring.current.id, len(asked)) == ("k2", 3)


def test_a_ring_shows_its_names_and_nothing_else() -> None:
    ring = KeyRing({"k1": ONE, "k2": TWO})
    for shown in (repr(ring), str(ring), f"{ring.current}", repr(dict(ring.keys)), repr(vars(ring))):
        for secret in (ONE, TWO):
            for form in (text(secret), secret.hex(), repr(secret)[2:-1]):
                assert form not in shown
    assert "k1" in repr(ring)


@pytest.mark.parametrize("thing", [KeyRing({"k1": ONE}), Key("k1", ONE)], ids=["ring", "key"])
def test_keys_are_not_pickled(thing: object) -> None:
    for call in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="not pickled"):
            call(thing)


def test_the_check_of_a_key_tells_two_of_one_name_apart() -> None:
    labels = {Key("k", os.urandom(32)).label for _ in range(50)}
    assert len(labels) == 50
    assert all(label.startswith("k:") and len(label) == 8 for label in labels)
