"""What always has to hold, and the tests that show it: the table of the page on how it is tested."""

from __future__ import annotations

from attrs import frozen

__all__ = ["INVARIANTS", "PROPERTIES", "Invariant", "Property", "invariant_table", "property_table"]

DAYS = "tests/dst/test_simulation.py::test_whatever_happens_in_a_day_every_promise_is_kept"

CHILDREN = "tests/engine/test_children.py"
TURNS = "tests/engine/test_continue_as_new.py"


@frozen
class Invariant:
    """One invariant: what holds, and tests as `path::name`. Without a test, `why` says why there is none."""

    id: str
    text: str
    tests: tuple[str, ...] = ()
    why: str = ""


@frozen
class Property:
    """A promise to users, and the invariants that it is made of."""

    id: str
    text: str
    of: tuple[str, ...]


PROPERTIES = (
    Property("P1", "What was acknowledged is there, as it was given, until it is removed.", ("S1", "S5", "S9", "S10")),
    Property("P2", "What is recorded never runs again.", ("S2", "S3", "S15")),
    Property("P3", "A history replays to what happened, live and for ever after.", ("S6", "S7", "S8", "S19")),
    Property("P4", "Of those who believe to own a run, one writes.", ("S4", "S16")),
    Property("P5", "What comes from outside or from relatives counts once, in its order.", ("S11", "S14", "S16")),
    Property("P6", "Instants and numbers of tries hold, whatever dies in between.", ("S12", "S13", "S15")),
    Property("P7", "Once nothing fails, everything comes to its end or waits for somebody.", ("S17", "S18", "S20")),
)

INVARIANTS = (
    Invariant(
        "S1",
        "An acknowledged start, signal, step, timer or result is never lost or changed.",
        (
            DAYS,
            "tests/dst/test_simulation.py::test_stores_in_files_keep_every_promise_too",
            "tests/crash/test_kill_points.py::test_a_death_at_any_operation_loses_and_repeats_nothing",
            "tests/crash/test_power_cuts.py::test_what_was_acknowledged_or_read_survives_every_power_cut",
            "tests/crash/test_crash_states.py::test_no_crash_undoes_what_was_told",
            "tests/crash/test_crowd.py::test_a_crowd_that_is_killed_loses_and_repeats_nothing",
            "tests/crash/test_connections.py::test_whatever_is_cut_each_record_is_there_once",
            "tests/crash/test_server_deaths.py::test_what_a_server_acknowledged_before_it_died_is_there",
        ),
    ),
    Invariant(
        "S2",
        "A step that is recorded is never performed again by whoever owns the run, and is recorded once.",
        (
            DAYS,
            "tests/crash/test_kill_points.py::test_deaths_anywhere_lose_and_repeat_nothing",
            "tests/crash/test_kill_points.py::test_workers_that_die_at_a_question_lose_and_repeat_nothing",
            "tests/engine/test_crash.py::test_the_next_process_repeats_no_recorded_step",
            "tests/property/test_schedules.py::test_every_schedule_ends_and_live_equals_replay",
        ),
    ),
    Invariant(
        "S3",
        "A step that is not recorded may run again, with the same arguments and the same idempotency key.",
        (
            DAYS,
            "tests/engine/test_retries.py::test_an_idempotency_key_is_the_same_for_every_attempt_and_session",
            "tests/engine/test_crash.py::test_what_was_drawn_before_the_crash_is_kept",
        ),
    ),
    Invariant(
        "S4",
        "Session numbers of a history never fall; nothing is written, and no lease renewed, under an older one.",
        (
            DAYS,
            "tests/crash/test_pauses.py::test_an_owner_of_yesterday_writes_nothing",
            "tests/engine/test_ownership.py::test_a_stale_owner_is_told_and_writes_nothing",
        ),
    ),
    Invariant(
        "S5",
        "Positions have no gap and no duplicate; nothing is written behind what closed a history.",
        (
            DAYS,
            "engine/stepwell/testing/contract_histories.py::test_a_batch_is_gapless",
            "tests/unit/test_divergence.py::test_nothing_comes_after_the_event_that_closed_the_run",
        ),
    ),
    Invariant(
        "S6",
        "Any prefix of a history asks for what was recorded next, and is the same bytes when it is encoded again.",
        (
            DAYS,
            "tests/property/test_machine_properties.py::test_any_prefix_of_any_history_folds_to_one_state",
            "tests/unit/test_events.py::test_every_event_comes_back_from_its_line",
        ),
    ),
    Invariant(
        "S7",
        "The value that a workflow sees live is the one that is read back: its type, its order, its text.",
        (
            DAYS,
            "tests/unit/test_machine_values.py::test_a_value_comes_back_as_its_type_live_and_on_replay",
            "tests/engine/test_values.py::test_a_value_enters_the_workflow_as_it_is_read_back",
        ),
    ),
    Invariant(
        "S8",
        "Code that does not fit a history is refused before any effect, with what was recorded and what is yielded.",
        (
            "tests/unit/test_divergence.py::test_a_change_of_the_steps_is_found_where_it_shows",
            "tests/unit/test_divergence.py::test_it_says_where_what_was_recorded_what_is_yielded_and_what_to_do",
            "tests/engine/test_blocked.py::test_changed_code_blocks_the_run_and_says_what_differs",
        ),
    ),
    Invariant(
        "S9",
        "Damaged or unknown data is a typed error with its place; what was acknowledged is never cut in silence.",
        (
            DAYS,
            "tests/crash/test_fuzz.py::test_a_damaged_line_is_refused_by_name_or_read_as_it_is",
            "tests/crash/test_fuzz.py::test_a_damaged_directory_loses_and_alters_nothing_in_silence",
            "tests/stores/test_jsonl_files.py::test_a_torn_tail_is_moved_aside",
        ),
    ),
    Invariant(
        "S10",
        "A last record that is whole and lacks its newline is kept; one of NULs is torn; anything else is damage.",
        (
            "tests/stores/test_jsonl_files.py::test_a_record_that_lacks_its_newline_is_kept",
            "tests/crash/test_simfs.py::test_a_tail_that_was_not_synced_is_cut_anywhere_or_ends_in_nuls",
            "tests/crash/test_crash_states.py::test_no_crash_undoes_what_was_told",
        ),
    ),
    Invariant(
        "S11",
        "Each signal is delivered once, in the order of its acceptance, also across turns, cancels and time-outs.",
        (
            DAYS,
            TURNS + "::test_a_thousand_signals_at_random_instants_keep_count_and_order",
            "tests/engine/test_crash.py::test_a_signal_counts_once_whenever_the_process_dies",
        ),
    ),
    Invariant(
        "S12",
        "A timer fires once and never early by the clock of whoever fires it; its instant is recorded and stays.",
        (
            DAYS,
            "tests/engine/test_due.py::test_a_clock_that_jumps_back_fires_nothing_early",
            "tests/engine/test_due.py::test_the_due_instant_survives_the_process",
            "tests/engine/test_due.py::test_a_run_that_is_woken_in_two_engines_wakes_once",
        ),
    ),
    Invariant(
        "S13",
        "Each slot of a schedule is started once, or skipped as was declared.",
        (
            "tests/property/test_slots.py::test_slots_are_those_that_a_look_at_every_minute_finds",
            "tests/unit/test_schedule_slots.py::test_clocks_that_are_moved_neither_lose_nor_double_a_slot",
            "tests/engine/test_schedules.py::test_what_nobody_was_there_for_goes_by_the_policy",
            "tests/engine/test_schedules.py::test_whatever_dies_at_any_write_each_slot_is_started_once",
            "tests/engine/test_schedules.py::test_thirty_days_are_simulated_in_no_time_and_through_every_crash",
            "tests/engine/test_schedule_processes.py::test_two_workers_that_are_killed_in_turn_start_each_slot_once",
        ),
    ),
    Invariant(
        "S14",
        "A command has one child, whatever dies in between; its parent is told what it came to.",
        (
            DAYS,
            CHILDREN + "::test_whatever_dies_between_parent_and_child_there_is_one_child_one_result_and_one_delivery",
            CHILDREN + "::test_whatever_dies_while_a_cancel_is_passed_on_it_reaches_the_child",
        ),
    ),
    Invariant(
        "S15",
        "Attempts and pauses between them are never more and never shorter than the policy says, across crashes.",
        (
            DAYS,
            "tests/engine/test_retries.py::test_the_count_of_attempts_survives_the_session",
            "tests/engine/test_retries.py::test_delays_grow_up_to_the_cap",
        ),
    ),
    Invariant(
        "S16",
        "Of those who start one run id, one wins, and the others get what the policy says.",
        (
            DAYS,
            "tests/crash/test_start_races.py::test_one_of_eight_processes_wins",
            "tests/engine/test_threads.py::test_of_threads_that_start_one_run_one_drives_it",
        ),
    ),
    Invariant(
        "S17",
        "Once nothing fails any more, every run that waits for nobody ends within a bound; none is blocked.",
        (
            DAYS,
            "tests/property/test_schedules.py::test_every_schedule_ends_and_live_equals_replay",
            "tests/engine/test_worker.py::test_what_nobody_tells_of_is_found_by_looking",
            "tests/engine/test_worker.py::test_a_poison_at_any_place_of_a_batch_is_marked_and_the_others_are_driven",
        ),
    ),
    Invariant(
        "S18",
        "What goes wrong with a store is never the outcome of a workflow, nor the other way round.",
        (
            DAYS,
            "tests/crash/test_store_calls.py::test_whichever_call_of_the_port_fails_the_run_comes_to_its_right_end",
            "tests/crash/test_store_calls.py::test_whichever_call_below_the_port_fails_the_run_comes_to_its_right_end",
            "tests/engine/test_ownership.py::test_a_store_that_stays_away_ends_the_session_and_not_the_run",
        ),
    ),
    Invariant(
        "S19",
        "Leaving a generator performs nothing; nobody performs a step of a run whose lease it never had.",
        (
            DAYS,
            "tests/unit/test_closing.py::test_a_command_that_is_yielded_while_closing_is_never_performed",
            "tests/unit/test_closing.py::test_finally_runs_for_good_when_the_run_really_passes_there",
        ),
    ),
    Invariant(
        "S20",
        "Limits are met before anything is written or performed, with a typed error.",
        (
            "tests/codec/test_limits.py::test_a_mebibyte_and_a_hundred_levels_are_the_limits",
            TURNS + "::test_a_history_that_is_too_long_is_refused_before_anything_is_performed",
            CHILDREN + "::test_children_can_be_nested_so_deep_and_no_deeper",
        ),
    ),
)


def property_table() -> list[str]:
    """The promises, and what they are made of."""
    rows = [f"| {one.id} | {one.text} | {', '.join(one.of)} |" for one in PROPERTIES]
    return ["| | Promise | Invariants |", "|---|---|---|", *rows]


def invariant_table() -> list[str]:
    """Each invariant, with links to the files and the names of the tests."""
    rows = [f"| {one.id} | {one.text} | {'; '.join(map(_link, one.tests)) or one.why} |" for one in INVARIANTS]
    return ["| | Invariant | Shown by |", "|---|---|---|", *rows]


def _link(test: str) -> str:
    path, _, name = test.partition("::")
    return f"[{path.rpartition('/')[2]}](../../{path}): `{name}`"
