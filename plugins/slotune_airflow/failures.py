"""slotune's errors on Airflow's terms: Permanent fails the task at once, Temporary is tried again.

The log of a failed task shows the sentence; the chain of causes stays below it for whoever wants it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from detection.errors import Permanent, Temporary


@contextmanager
def as_airflow_failures() -> Iterator[None]:
    try:
        yield
    except Permanent as error:
        raise AirflowFailException(str(error)) from error
    except Temporary as error:
        raise AirflowException(str(error)) from error
