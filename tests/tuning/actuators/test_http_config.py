from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from detection.model import Service
from tests.fakes.actuators import ConfigEndpoint, FakeConnections, FakeTime, config_endpoint, service
from tuning.actuators.http_config import HttpConfig
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, NotApplied, NotOwner, OutcomeUnknown
from tuning.model import Change
from tuning.ports import Connection

UP = Change(
    lever="batch_size", old={"batch_size": 1, "batch_timeout_ms": 2.0}, new={"batch_size": 8, "batch_timeout_ms": 5.0}
)


@pytest.fixture
def endpoint() -> Iterator[ConfigEndpoint]:
    with config_endpoint() as running:
        yield running


def lever(*endpoints: ConfigEndpoint, extra: dict[str, object] | None = None) -> tuple[HttpConfig, Service, FakeTime]:
    time = FakeTime()
    known: dict[str, str | Connection] = {
        f"r{i}": Connection(name=f"r{i}", url=endpoint.url, extra=extra or {}) for i, endpoint in enumerate(endpoints)
    }
    others = [name for name in known if name != "r0"]
    actuator = HttpConfig(FakeConnections(known), time.clock, time.sleep)
    return (
        actuator,
        service("batch_size", "http_config", connection="r0", endpoints=others, request_timeout_s=0.2),
        time,
    )


def test_changes_and_reads_back(endpoint: ConfigEndpoint) -> None:
    actuator, ranker, _ = lever(endpoint)
    receipt = actuator.apply(ranker, UP, key="plan-1")
    assert (receipt.changed, receipt.applied, receipt.before["batch_size"], receipt.after["batch_size"]) == (
        True,
        True,
        1,
        8,
    )
    assert endpoint.config["batch_size"] == 8
    assert actuator.read(ranker).values == {"batch_size": 8, "batch_timeout_ms": 5.0}


def test_a_repeat_changes_nothing_and_has_the_same_receipt_id(endpoint: ConfigEndpoint) -> None:
    actuator, ranker, _ = lever(endpoint)
    first = actuator.apply(ranker, UP, key="plan-1")
    again = actuator.apply(ranker, UP, key="plan-1")
    assert (again.changed, again.id) == (False, first.id)
    assert [method for method, _ in endpoint.calls].count("POST") == 1


def test_the_inverse_restores(endpoint: ConfigEndpoint) -> None:
    actuator, ranker, _ = lever(endpoint)
    actuator.apply(ranker, UP, key="plan-1")
    actuator.apply(ranker, UP.inverse(), key="plan-1-inverse")
    assert endpoint.config["batch_size"] == 1


def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        down = ConfigEndpoint()
        down.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        actuator, ranker, _ = lever(down)
        with pytest.raises(ControlUnreachable, match="nobody listens"):
            actuator.apply(ranker, UP, key="k")


@pytest.mark.parametrize("what", ["drop-applied", 500])
def test_lost_answer_that_landed_is_found_by_reading_back(endpoint: ConfigEndpoint, what: object) -> None:
    actuator, ranker, _ = lever(endpoint)
    if what == 500:
        endpoint.plan = [("POST", 500)]
        with pytest.raises(OutcomeUnknown, match="still shows"):
            actuator.apply(ranker, UP, key="k")
    else:
        endpoint.plan = [("POST", what)]
        assert actuator.apply(ranker, UP, key="k").changed


@pytest.mark.parametrize("what", ["drop", "hang"])
def test_lost_answer_that_did_not_land_stays_unknown(endpoint: ConfigEndpoint, what: str) -> None:
    actuator, ranker, time = lever(endpoint)
    endpoint.plan = [("POST", what)]
    with pytest.raises(OutcomeUnknown, match="still shows batch_size 1"):
        actuator.apply(ranker, UP, key="k")
    assert sum(time.slept) >= 1.5  # it looked more than once: a late landing is possible


def test_a_change_that_lands_late_is_seen(endpoint: ConfigEndpoint) -> None:
    actuator, ranker, time = lever(endpoint)
    endpoint.plan = [("POST", "drop")]
    time.on_sleep = lambda _: endpoint.config.update(UP.new)
    assert actuator.apply(ranker, UP, key="k").after["batch_size"] == 8


def test_endpoint_gone_after_the_change_was_sent_is_unknown(endpoint: ConfigEndpoint) -> None:
    actuator, ranker, _ = lever(endpoint)
    endpoint.plan = [("POST", "drop"), *[("GET", 503)] * 3]
    with pytest.raises(OutcomeUnknown, match="no answer either"):
        actuator.apply(ranker, UP, key="k")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_refusals_carry_the_bodys_words(endpoint: ConfigEndpoint, status: int) -> None:
    actuator, ranker, _ = lever(endpoint)
    endpoint.plan = [("POST", status)]
    with pytest.raises(ControlRefused, match=f"{status} because the fake says so"):
        actuator.apply(ranker, UP, key="k")


def test_too_many_requests_may_be_tried_again(endpoint: ConfigEndpoint) -> None:
    actuator, ranker, _ = lever(endpoint)
    endpoint.plan = [("GET", 429)]
    with pytest.raises(ControlUnreachable, match="429"):
        actuator.read(ranker)


def test_accepted_but_not_applied(endpoint: ConfigEndpoint) -> None:
    actuator, ranker, _ = lever(endpoint)
    endpoint.plan = [("POST", "ignore")]
    with pytest.raises(NotApplied, match=r"accepted batch_size 8.*shows batch_size 1"):
        actuator.apply(ranker, UP, key="k")


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>hello</html>",
        b"[1, 2]",
        b"null",
        b'{"batch_size": "8"}',
        b'{"batch_size": 0}',
        b'{"batch_size": true}',
        b"{}",
        b"",
        b"\xff\xfe",
    ],
)
def test_garbage_is_named(endpoint: ConfigEndpoint, garbage: bytes) -> None:
    actuator, ranker, _ = lever(endpoint)
    endpoint.plan = [("GET", garbage)]
    with pytest.raises(ControlRefused, match="/config"):
        actuator.read(ranker)


def test_long_words_are_cut_and_unprintable_ones_dropped(endpoint: ConfigEndpoint) -> None:
    actuator, ranker, _ = lever(endpoint)
    endpoint.plan = [("GET", b"\x1b[31m" + b"x" * 5000)]
    with pytest.raises(ControlRefused) as error:
        actuator.read(ranker)
    assert len(str(error.value)) < 600
    assert "\x1b" not in str(error.value)


def test_all_replicas_are_changed_or_none() -> None:
    with config_endpoint() as a, config_endpoint() as b:
        actuator, ranker, _ = lever(a, b)
        b.plan = [("POST", 400)]
        with pytest.raises(ControlRefused):
            actuator.apply(ranker, UP, key="k")
        assert (a.config["batch_size"], b.config["batch_size"]) == (1, 1)
        assert actuator.apply(ranker, UP, key="k").evidence["replicas"] == {
            "r0": {"batch_size": 8, "batch_timeout_ms": 5.0},
            "r1": {"batch_size": 8, "batch_timeout_ms": 5.0},
        }


def test_one_replica_down_changes_nothing() -> None:
    with config_endpoint() as a, config_endpoint() as b:
        actuator, ranker, _ = lever(a, b)
        b.plan = [("GET", 503)]
        with pytest.raises(ControlUnreachable):
            actuator.apply(ranker, UP, key="k")
        assert a.config["batch_size"] == 1


def test_canary_changes_one_replica_and_the_rest_follow() -> None:
    with config_endpoint() as a, config_endpoint() as b:
        actuator, ranker, _ = lever(a, b)
        actuator.apply_to(ranker, UP, "r1", key="k-canary")
        assert (a.config["batch_size"], b.config["batch_size"]) == (1, 8)
        setting = actuator.read(ranker)
        assert "differ" in setting.note
        shown = {setting.values["batch_size"], *(v["batch_size"] for v in setting.others.values())}
        assert shown == {1, 8} and len(setting.others) == 1
        actuator.apply(ranker, UP, key="k")
        assert (a.config["batch_size"], b.config["batch_size"]) == (8, 8)
        with pytest.raises(ConfigError, match="r0, r1"):
            actuator.apply_to(ranker, UP, "r9", key="k")


def test_a_restarted_replica_is_set_again() -> None:
    with config_endpoint() as a, config_endpoint({"batch_size": 3, "batch_timeout_ms": 2.0}) as b:
        actuator, ranker, _ = lever(a, b)
        actuator.apply(ranker, UP, key="k")
        assert b.config["batch_size"] == 8


def test_somebody_elses_value_is_left_alone(endpoint: ConfigEndpoint) -> None:
    actuator, ranker, _ = lever(endpoint)
    endpoint.config["batch_size"] = 3
    with pytest.raises(NotOwner, match="somebody else changed it"):
        actuator.apply(ranker, UP, key="k")
    assert endpoint.config["batch_size"] == 3


def test_credentials_are_sent_and_never_shown(endpoint: ConfigEndpoint) -> None:
    actuator, ranker, _ = lever(endpoint, extra={"token": "s3cret"})
    actuator.read(ranker)
    assert endpoint.headers[0]["Authorization"] == "Bearer s3cret"
    endpoint.plan = [("GET", 401)]
    with pytest.raises(ControlRefused) as error:
        actuator.read(ranker)
    assert "s3cret" not in str(error.value)


def test_a_missing_connection_option_is_named() -> None:
    time = FakeTime()
    actuator = HttpConfig(FakeConnections({}), time.clock, time.sleep)
    with pytest.raises(ConfigError, match=r"services.ranker.levers.batch_size.connection"):
        actuator.read(service("batch_size", "http_config"))


def test_a_plain_address_shares_the_first_connections_credentials() -> None:
    with config_endpoint() as a, config_endpoint() as b:
        time = FakeTime()
        known: dict[str, str | Connection] = {"r0": Connection(name="r0", url=a.url, extra={"token": "s3cret"})}
        actuator = HttpConfig(FakeConnections(known), time.clock, time.sleep)
        ranker = service("batch_size", "http_config", connection="r0", endpoints=[b.url])
        actuator.apply(ranker, UP, key="k:batch_size")
        assert (a.config["batch_size"], b.config["batch_size"]) == (8, 8)
        assert b.headers[0]["Authorization"] == "Bearer s3cret"
