"""The breaker lever over HTTP: one route moves and the others stay, weights go as numbers, what is no state is shown."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.fakes.actuators import FakeConnections, FakeTime, config_endpoint, service
from tuning.actuators.http_breaker import HttpBreaker
from tuning.errors import ConfigError, ControlRefused
from tuning.model import Change

pytestmark = pytest.mark.server
OPEN = Change(lever="breaker", old={"eu": "closed"}, new={"eu": "open"})


def gateway(stack: ExitStack, config: dict[str, object]):
    endpoint = stack.enter_context(config_endpoint(config))
    time = FakeTime()
    lever = HttpBreaker(FakeConnections({"c": endpoint.url}), time.clock, time.sleep)
    ranker = service(
        "breaker", "http_breaker", connection="c", request_timeout_s=0.5, read={"path": "/config"},
        states={"closed": 100, "half_open": 5, "open": 0},
        write={"method": "POST", "path": "/config", "body": {"{route}": "{state}"}},
        routes=[{"name": n, "value": f"{n}-1", "state_at": f"/{n}-1", "capacity": 9, "failed": "f"} for n in ("eu", "us")],
    )  # fmt: skip
    return endpoint, lever, ranker


def test_one_route_moves_by_its_own_name_and_the_other_stays():
    with ExitStack() as stack:
        endpoint, lever, ranker = gateway(stack, {"eu-1": 100, "us-1": 100})
        assert lever.read(ranker).values == {"eu": "closed", "us": "closed"}
        receipt = lever.apply(ranker, OPEN, key="p:breaker")
        assert endpoint.config == {"eu-1": 0, "us-1": 100} and receipt.changed
        assert [body for method, body in endpoint.calls if method == "POST"] == [{"eu-1": 0}], "a weight is a number"
        lever.apply(ranker, OPEN.model_copy(update={"old": {"eu": "open"}, "new": {"eu": "half_open"}}), key="q:breaker")
        assert endpoint.config == {"eu-1": 5, "us-1": 100}


def test_what_is_no_state_of_ours_is_shown_as_it_is():
    with ExitStack() as stack:
        _, lever, ranker = gateway(stack, {"eu-1": 50, "us-1": 100})
        assert lever.read(ranker).values == {"eu": "50", "us": "closed"}


@pytest.mark.parametrize("new", [{"eu": "ajar"}, {"asia": "open"}])
def test_what_is_no_route_or_state_is_sent_nowhere(new):
    with ExitStack() as stack:
        endpoint, lever, ranker = gateway(stack, {"eu-1": 100, "us-1": 100})
        with pytest.raises(ConfigError, match="which is no route in a state that there is"):
            lever.apply(ranker, OPEN.model_copy(update={"new": new}), key="p:breaker")
        assert all(method == "GET" for method, _ in endpoint.calls)


def test_a_route_that_the_gateway_does_not_show_is_a_sentence():
    with ExitStack() as stack:
        _, lever, ranker = gateway(stack, {"us-1": 100})
        with pytest.raises(ControlRefused, match=r"GET .*/config: in the answer"):
            lever.read(ranker)
