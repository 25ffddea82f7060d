"""The admission levers: what is no limit is a sentence, all replicas change or none, the demo server's real queue."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.fakes.actuators import FakeConnections, FakeTime, config_endpoint, service
from tests.fakes.triton import triton
from tuning.actuators.http_admission import HttpAdmission
from tuning.actuators.triton_admission import TritonAdmission
from tuning.errors import ConfigError, ControlRefused
from tuning.model import Change

pytestmark = pytest.mark.server
CALLS = {"limits": "queue", "read": {"path": "/config", "limit_at": "/max"}, "write": {"path": "/config", "body": {"max": "{limit}"}}}
LOWER = Change(lever="admission", old={"queue_limit": 500}, new={"queue_limit": 20})


def doors(stack: ExitStack, *shown: object, **more: object):
    endpoints = [stack.enter_context(config_endpoint({"max": one})) for one in shown]
    time = FakeTime()
    lever = HttpAdmission(FakeConnections({"c": endpoints[0].url}), time.clock, time.sleep)
    others = [endpoint.url for endpoint in endpoints[1:]]
    options = {**CALLS, "connection": "c", "endpoints": others, "request_timeout_s": 0.5, **more}
    return endpoints, lever, service("admission", "http_admission", **options)


def test_all_replicas_change_or_none():
    with ExitStack() as stack:
        endpoints, lever, ranker = doors(stack, 500, 500)
        assert lever.apply(ranker, LOWER, key="p:admission").after == {"queue_limit": 20}
        endpoints[1].plan = [("GET", None), ("POST", 409)]
        with pytest.raises(ControlRefused):
            lever.apply(ranker, LOWER.inverse().model_copy(update={"undoes": False}), key="q:admission")
        assert [endpoint.config["max"] for endpoint in endpoints] == [20, 20]


@pytest.mark.parametrize("shown", [0, -1, "0"])
def test_what_may_be_no_limit_is_a_sentence_until_somebody_says_so(shown):
    with ExitStack() as stack:
        _, lever, ranker = doors(stack, shown)
        found = lever.read(ranker)
        assert found.values == {"queue_limit": int(shown)}
        assert f"the limit shows {shown}" in found.useless and f"(unlimited: {shown})" in found.useless
        _, lever, ranker = doors(stack, shown, unlimited=int(shown))
        assert lever.read(ranker).useless == ""


@pytest.mark.parametrize("shown", ["many", 8.5, True, -2, None, [5]])
def test_what_is_no_number_is_refused_with_what_stands_there(shown):
    with ExitStack() as stack:
        _, lever, ranker = doors(stack, shown)
        with pytest.raises(ControlRefused, match="shows no usable limit at /max"):
            lever.read(ranker)


def test_a_change_without_a_usable_limit_is_sent_nowhere():
    with ExitStack() as stack:
        endpoints, lever, ranker = doors(stack, 500)
        with pytest.raises(ConfigError, match="the change names no queue_limit"):
            lever.apply(ranker, LOWER.model_copy(update={"new": {"queue_limit": "20"}}), key="p:admission")
        assert [call[0] for call in endpoints[0].calls if call[0] != "GET"] == []


def test_triton_says_no_limit_with_0_and_goes_back_to_that():
    with ExitStack() as stack:
        stub = stack.enter_context(triton())
        time = FakeTime()
        lever = TritonAdmission(FakeConnections({"c": stub.url}), time.clock, time.sleep)
        ranker = service("admission", "triton_admission", connection="c", model="ranker", request_timeout_s=0.5)
        setting = lever.read(ranker)
        assert (setting.values, setting.useless) == ({"queue_limit": 0}, "")
        change = Change(lever="admission", old={"queue_limit": 0}, new={"queue_limit": 16})
        lever.apply(ranker, change, key="p:admission")
        assert stub.config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 16
        lever.apply(ranker, change.inverse(), key="u:admission")
        assert stub.config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 0


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"dynamic_batching": None}, "has no dynamic_batching"),
        ({"dynamic_batching": {"priority_queue_policy": {"1": {"max_queue_size": 5}}}}, "has priority levels"),
        ({"dynamic_batching": {"default_queue_policy": {"max_queue_size": "x"}}}, "no usable max_queue_size"),
    ],
)
def test_a_triton_model_without_one_queue_is_a_sentence(config, said):
    with ExitStack() as stack:
        stub = stack.enter_context(triton())
        stub.config.update(config)
        time = FakeTime()
        lever = TritonAdmission(FakeConnections({"c": stub.url}), time.clock, time.sleep)
        ranker = service("admission", "triton_admission", connection="c", model="ranker", request_timeout_s=0.5)
        with pytest.raises(ControlRefused, match=said):
            lever.read(ranker)
