"""The agent suite is complete, and none of its cases hides another."""

from collections import Counter

from jobmaster.testing.agents import AgentContract
from jobmaster.testing.agents.cases import AgentCases

PROMISED = [
    "returns_each_job_once_under_16_claimers",
    "respects_priority_then_fifo",
    "run_at_not_before_store_now",
    "limit_is_never_exceeded",
    "claim_does_not_block_producers",
    "claims_are_parallel_not_serialised",
    "token_strictly_increases_across_restart",
    "token_not_reused_after_store_rewind",
    "undecodable_row_is_quarantined_alone",
    "extend_with_current_token",
    "extend_same_value_twice_in_same_tick_is_kept",
    "extend_stale_token_rejected",
    "extend_after_expiry_before_reap",
    "expiry_uses_store_clock_with_client_skew_of_1h",
    "reap_is_idempotent_and_bounded",
    "stale_finish_rejected_and_reported",
    "finish_twice_same_token_same_outcome_is_accepted",
    "finish_twice_different_outcome_rejected",
    "zombie_nak_cannot_touch_new_lease",
    "zombie_term_cannot_touch_new_lease",
    "zombie_ack_cannot_touch_new_lease",
    "finish_is_atomic_with_event_append",
    "finish_after_cancel",
    "idempotent_by_job_id",
    "higher_epoch_replaces_only_if_not_running",
    "lower_epoch_ignored",
    "same_key_different_payload_is_conflict",
    "keys_differing_in_case_space_accent_are_distinct",
    "64_kib_1_mib_and_1_mib_plus_1",
    "portable_json_corpus_round_trips_byte_equal",
    "versions_strictly_increase",
    "ack_then_crash_replays",
    "poison_event_does_not_block",
    "kill_connection_mid_claim",
    "kill_connection_mid_extend",
    "kill_connection_mid_finish",
    "indeterminate_then_retry_converges",
    "restart_store",
    "durability_probe_refuses_unsafe",
    "queue_name_fuzz_rejected_before_transport",
    "two_clusters_same_store_are_invisible_to_each_other",
    "10k_backlog_claim_p99_is_bounded",
    "explain_uses_index_no_filesort",
]


def test_every_promised_case_exists() -> None:
    missing = [name for name in PROMISED if not hasattr(AgentContract, f"test_{name}")]

    assert missing == []


def test_no_two_case_classes_share_a_name() -> None:
    classes = [base for base in AgentContract.__mro__ if issubclass(base, AgentCases)]
    names = Counter(name for base in classes for name in vars(base) if name.startswith("test_"))

    assert [name for name, times in names.items() if times > 1] == []
    assert len(names) > 150
