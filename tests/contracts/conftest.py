"""The API server of the Kubernetes contract suites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.kubernetes_subject import Subject, subject_of_this_run


@pytest.fixture
def subject() -> Iterator[Subject]:
    with subject_of_this_run() as found:
        yield found
