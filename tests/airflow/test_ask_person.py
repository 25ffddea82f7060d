"""The request for approval in Airflow: only the fields of the plan's own levers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from slotune_airflow.operators import ask_person

pytestmark = pytest.mark.airflow


class Instance:
    """A task instance as far as the fields go."""

    def __init__(self, pushed) -> None:
        self.pushed = pushed

    def xcom_pull(self, *, task_ids, key):
        assert (task_ids, key) == ("choose_action", "approval")
        return self.pushed


@pytest.mark.parametrize(
    ("pushed", "shown"),
    [
        ({"fields": ["batch_size", "comment"]}, ["batch_size", "comment"]),
        ({"fields": ["min_replicas", "comment"]}, ["min_replicas", "comment"]),
        ({"fields": ["comment"]}, ["comment"]),
        ({"subject": "?"}, ["batch_size", "max_num_seqs", "min_replicas", "comment"]),
        (None, ["batch_size", "max_num_seqs", "min_replicas", "comment"]),
    ],
)
def test_only_the_fields_of_the_plans_levers_are_shown(pushed, shown) -> None:
    operator = ask_person("approve", response_timeout=timedelta(minutes=5))
    operator.choose_fields({"ti": Instance(pushed)})
    assert list(operator.serialized_params) == shown
    operator.validate_params_input(dict.fromkeys(shown))
