"""The bodies that the fault campaign wraps are those of the plugin."""

from __future__ import annotations

import pytest

from tests.faults.airflow_steps import BODIES

pytestmark = pytest.mark.airflow


def test_every_body_is_a_function_of_the_plugin():
    from slotune_airflow import steps

    assert [name for name in BODIES if not callable(getattr(steps, name, None))] == []
