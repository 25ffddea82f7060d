"""The variant levers: names in plans, values at the server; what serves and is none of them is somebody else's."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.fakes.actuators import FakeConnections, FakeTime, config_endpoint, service
from tests.fakes.triton import triton
from tuning.actuators.http_variant import HttpVariant
from tuning.actuators.triton_variant import TritonVariant
from tuning.errors import ConfigError, ControlRefused
from tuning.model import Change

pytestmark = pytest.mark.server
TOLD = {
    "quality_of": "accuracy",
    "variants": [{"name": "full", "value": "7", "quality": 0.9}, {"name": "small", "value": "6", "quality": 0.8}],
}
CALLS = {"read": {"path": "/config", "variant_at": "/route"}, "write": {"path": "/config", "body": {"route": "{variant}"}}}
LEND = Change(lever="variant", old={"variant": "full"}, new={"variant": "small"})


def gateway(stack: ExitStack, *routes: object):
    endpoints = [stack.enter_context(config_endpoint({"route": route})) for route in routes]
    time = FakeTime()
    lever = HttpVariant(FakeConnections({"c": endpoints[0].url}), time.clock, time.sleep)
    others = [endpoint.url for endpoint in endpoints[1:]]
    return endpoints, lever, service("variant", "http_variant", connection="c", endpoints=others, request_timeout_s=0.5, **CALLS, **TOLD)


def test_all_replicas_switch_or_none():
    with ExitStack() as stack:
        endpoints, lever, ranker = gateway(stack, "7", "7")
        assert lever.apply(ranker, LEND, key="p:variant").after == {"variant": "small"}
        assert [endpoint.config["route"] for endpoint in endpoints] == ["6", "6"]
        endpoints[1].plan = [("GET", None), ("POST", 409)]
        with pytest.raises(ControlRefused):
            lever.apply(ranker, LEND.inverse().model_copy(update={"undoes": False}), key="q:variant")
        assert [endpoint.config["route"] for endpoint in endpoints] == ["6", "6"]


def test_a_number_is_a_value_too():
    with ExitStack() as stack:
        _, lever, ranker = gateway(stack, 7)
        assert lever.read(ranker).values == {"variant": "full"}


def test_what_is_none_of_the_variants_is_named_and_no_plan_is_made_with_it():
    with ExitStack() as stack:
        _, lever, ranker = gateway(stack, "9")
        setting = lever.read(ranker)
        assert setting.values == {"variant": "9"}
        assert setting.useless == "9 serves, which is none of the variants in services.yaml (full, small): somebody else chose it"


def test_a_variant_that_nobody_listed_is_not_sent_anywhere():
    with ExitStack() as stack:
        endpoints, lever, ranker = gateway(stack, "7")
        with pytest.raises(ConfigError, match="there is no variant 'tiny'; known: full, small"):
            lever.apply(ranker, LEND.model_copy(update={"new": {"variant": "tiny"}}), key="p:variant")
        assert endpoints[0].config["route"] == "7"


def test_triton_serves_one_version_alone_and_goes_back():
    with ExitStack() as stack:
        stub = stack.enter_context(triton())
        stub.disk, stub.serving = {6, 7}, {7}
        time = FakeTime()
        lever = TritonVariant(FakeConnections({"c": stub.url}), time.clock, time.sleep)
        ranker = service("variant", "triton_variant", connection="c", model="ranker", request_timeout_s=0.5, **TOLD)
        lever.apply(ranker, LEND, key="p:variant")
        assert stub.serving == {6}
        lever.apply(ranker, LEND.inverse(), key="u:variant")
        assert stub.serving == {7}
