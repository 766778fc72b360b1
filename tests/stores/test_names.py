"""Run ids as file names."""

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from stepwell.testing.contract_bench import ODD_RUN_IDS
from stepwell_stores.file_names import decode, encode

RUN_IDS = st.one_of(
    st.text(min_size=1, max_size=300),
    st.text("abAB./\\~%-_ éÉ", min_size=1, max_size=6),
    st.sampled_from(ODD_RUN_IDS),
)


@given(RUN_IDS)
def test_a_name_is_safe_on_every_file_system(run_id: str) -> None:
    name = encode(run_id)
    assert re.fullmatch(r"[a-z0-9_%~-]{1,180}", name)
    assert not re.fullmatch(r"con|prn|aux|nul|com\d|lpt\d", name)


@given(RUN_IDS)
def test_a_name_gives_its_id_back_unless_it_is_a_hash(run_id: str) -> None:
    name = encode(run_id)
    assert (None if "~" in name else run_id) == decode(name)


@given(st.sets(RUN_IDS, min_size=2, max_size=40))
def test_no_two_ids_share_a_name(run_ids: set[str]) -> None:
    assert len(run_ids) == len({encode(run_id) for run_id in run_ids})


@given(RUN_IDS)
def test_twins_are_told_apart_where_case_and_form_are_one(run_id: str) -> None:
    twins = {run_id, run_id.upper(), run_id.lower(), unicodedata.normalize("NFD", run_id), f"{run_id}."}
    assert len(twins) == len({encode(twin).casefold() for twin in twins})


def test_plain_ids_stand_for_themselves() -> None:
    assert ["order-12", "a_b", "0", "x" * 64] == [encode(run_id) for run_id in ("order-12", "a_b", "0", "x" * 64)]


def test_foreign_names_are_nobodys() -> None:
    assert [None] * 5 == [decode(name) for name in ("", "con", "Upper", "%C3%84", "%ff")]
