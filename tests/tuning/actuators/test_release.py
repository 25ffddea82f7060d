"""The release levers: what is refused changes nothing, and replicas end at one version or where they were."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.fakes.actuators import FakeConnections, FakeTime, config_endpoint, service
from tests.fakes.triton import triton
from tuning.actuators.http_release import HttpRelease
from tuning.actuators.triton_release import TritonRelease
from tuning.errors import ConfigError, ControlRefused, NotApplied
from tuning.model import Change

pytestmark = pytest.mark.server
READ = {"path": "/config", "version_at": "/version"}
WRITE = {"path": "/config", "body": {"version": "{version}"}}
BACK = Change(lever="release", old={"version": "7"}, new={"version": "6"})


def replicas(stack: ExitStack, *shown: object):
    endpoints = [stack.enter_context(config_endpoint({"version": version})) for version in shown]
    time = FakeTime()
    lever = HttpRelease(FakeConnections({"c": endpoints[0].url}), time.clock, time.sleep)
    others = [endpoint.url for endpoint in endpoints[1:]]
    return endpoints, lever, service("release", "http_release", connection="c", endpoints=others, read=READ, write=WRITE, request_timeout_s=0.5)


def test_all_replicas_go_back_or_none():
    with ExitStack() as stack:
        endpoints, lever, ranker = replicas(stack, "7", "7", "7")
        receipt = lever.apply(ranker, BACK, key="p:release")
        assert [e.config["version"] for e in endpoints] == ["6", "6", "6"] and receipt.changed
        for endpoint in endpoints:
            endpoint.config["version"] = "7"
        endpoints[2].plan = [("GET", None), ("POST", 409)]
        with pytest.raises(ControlRefused, match="the fake says so"):
            lever.apply(ranker, BACK, key="p:release")
        assert [e.config["version"] for e in endpoints] == ["7", "7", "7"]


def test_replicas_that_differ_are_told():
    with ExitStack() as stack:
        _, lever, ranker = replicas(stack, "7", "7", "6")
        setting = lever.read(ranker)
        assert setting.values == {"version": "7"} and list(setting.others.values()) == [{"version": "6"}]
        assert "replicas differ" in setting.note


@pytest.mark.parametrize("shown", [None, True, 1.5, [], {}, "", "x" * 121])
def test_what_is_no_version_is_a_sentence(shown):
    with ExitStack() as stack:
        _, lever, ranker = replicas(stack, shown)
        with pytest.raises(ControlRefused, match="shows no usable version at /version"):
            lever.read(ranker)


def test_a_number_is_a_version():
    with ExitStack() as stack:
        _, lever, ranker = replicas(stack, 7)
        assert lever.read(ranker).values == {"version": "7"}


def test_a_server_that_says_yes_and_serves_on_is_not_believed():
    with ExitStack() as stack:
        endpoints, lever, ranker = replicas(stack, "7")
        endpoints[0].plan = [("GET", None), ("POST", "ignore")]
        with pytest.raises(NotApplied, match="read-back shows version 7"):
            lever.apply(ranker, BACK, key="p:release")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        ({"path": "/config"}, "names no version"),
        ({"path": "/config/{batch_size}"}, r"there is no place \{batch_size\}"),
        ({"path": "config", "body": {"v": "{version}"}}, "must be a path below"),
    ],
)
def test_requests_that_cannot_be_meant_are_refused(write, words):
    time = FakeTime()
    ranker = service("release", "http_release", connection="c", read=READ, write=write)
    with pytest.raises(ConfigError, match=words):
        HttpRelease(FakeConnections({"c": "http://127.0.0.1:9"}), time.clock, time.sleep).read(ranker)


def triton_lever(stub):
    time = FakeTime()
    lever = TritonRelease(FakeConnections({"c": stub.url}), time.clock, time.sleep)
    return lever, service("release", "triton_release", connection="c", model="ranker", request_timeout_s=0.5)


def test_triton_goes_back_by_its_version_policy_and_keeps_the_rest():
    with triton() as stub:
        stub.disk, stub.serving = {6, 7}, {6, 7}
        lever, ranker = triton_lever(stub)
        assert lever.read(ranker).values == {"version": "7"}, "of several that are loaded the highest answers"
        lever.apply(ranker, BACK, key="p:release")
        assert stub.serving == {6} and stub.loads[-1]["max_batch_size"] == stub.config["max_batch_size"]
        assert stub.loads[-1]["version_policy"] == {"specific": {"versions": [6]}}


@pytest.mark.parametrize(("version", "words"), [("5", "no version"), ("latest", "those are numbers")])
def test_a_version_that_triton_does_not_have_changes_nothing(version, words):
    with triton() as stub:
        stub.disk, stub.serving = {6, 7}, {7}
        lever, ranker = triton_lever(stub)
        with pytest.raises(ControlRefused, match=words):
            lever.apply(ranker, BACK.model_copy(update={"new": {"version": version}}), key="p:release")
        assert stub.serving == {7}


def test_a_model_without_a_loaded_version_is_a_sentence():
    with triton() as stub:
        stub.disk, stub.serving = {7}, set()
        lever, ranker = triton_lever(stub)
        with pytest.raises(ControlRefused, match="has no version of ranker loaded"):
            lever.read(ranker)
