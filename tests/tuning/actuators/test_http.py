"""The batch lever of servers that nobody wrote an actuator for: on a real FastAPI server, and against odd answers."""

from __future__ import annotations

import re
import socket
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import Body, FastAPI, Header, HTTPException

from detection.model import Service
from tests.fakes.actuators import FakeConnections, FakeTime, config_endpoint, service
from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _request_template as templates
from tuning.actuators.http import HttpTemplate
from tuning.actuators.settings.batch_size import HttpOptions
from tuning.errors import ConfigError, ControlRefused, NotApplied, NotOwner, OutcomeUnknown
from tuning.model import Change
from tuning.ports import Connection
from tuning.services_yaml import loads

pytestmark = pytest.mark.server
UP = Change(
    lever="batch_size", old={"batch_size": 4, "batch_timeout_ms": 10.0}, new={"batch_size": 16, "batch_timeout_ms": 2.5}
)
SIZE_UP = Change(lever="batch_size", old={"batch_size": 4}, new={"batch_size": 16})
READ = {
    "path": "/admin/batching",
    "batch_size_at": "/batching/max rows",
    "batch_timeout_at": "/batching/wait/0",
}
BODY = {"batching": {"max rows": "{batch_size}", "wait": ["{batch_timeout}"]}}


class Own:
    """A FastAPI service as somebody writes one: a nested configuration, seconds, a token, validation by pydantic."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {"batching": {"max rows": 4, "wait": [0.01]}, "greeting": "hello {name}"}
        self.written: list[dict[str, Any]] = []
        self.seen: list[str | None] = []
        self.app = FastAPI()
        self.app.get("/admin/batching")(self.show)
        self.app.put("/admin/batching")(self.put)
        self.app.post("/resize/{rows}")(self.resize)

    def show(self) -> dict[str, Any]:
        return self.config

    def put(
        self,
        config: dict[str, Any] = Body(),
        authorization: str | None = Header(None),
        x_team: str | None = Header(None),
    ) -> dict[str, Any]:
        self.seen += [authorization, x_team]
        if int(config["batching"]["max rows"]) > 32:
            raise HTTPException(422, "max rows must be at most 32")
        self.written.append(config)
        self.config = config
        return {"ok": True}

    def resize(self, rows: int) -> None:
        self.config["batching"]["max rows"] = rows


@contextmanager
def running(own: Own) -> Iterator[str]:
    """The service on a free loopback port, in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(own.app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture
def own() -> Iterator[tuple[Own, str]]:
    made = Own()
    with running(made) as url:
        yield made, url


def lever(url: str, *more: str, extra: dict[str, object] | None = None, **options: Any) -> tuple[HttpTemplate, Service]:
    known = {f"r{i}": Connection(name=f"r{i}", url=at, extra=extra or {}) for i, at in enumerate((url, *more))}
    time = FakeTime()
    given = {"read": READ, "write": {"path": "/admin/batching", "body": BODY}, "batch_timeout_unit": "s"} | options
    chosen = service("batch_size", "http", connection="r0", endpoints=[n for n in known if n != "r0"], **given)
    return HttpTemplate(FakeConnections(known), time.clock, time.sleep), chosen


def test_a_service_of_ones_own_is_read_changed_and_put_back(own: tuple[Own, str]) -> None:
    server, url = own
    actuator, chosen = lever(url)
    assert actuator.read(chosen).values == {"batch_size": 4, "batch_timeout_ms": 10.0}
    receipt = actuator.apply(chosen, UP, key="plan:batch_size")
    assert (receipt.changed, receipt.before, receipt.after) == (True, dict(UP.old), dict(UP.new))
    assert server.config == {"batching": {"max rows": 16, "wait": [0.0025]}}
    assert actuator.apply(chosen, UP, key="plan:batch_size").changed is False
    actuator.apply(chosen, UP.inverse(), key="undo:batch_size")
    assert server.config["batching"] == {"max rows": 4, "wait": [0.01]}
    assert len(server.written) == 2


def test_what_is_sent_whole_keeps_everything_else_as_the_server_showed_it(own: tuple[Own, str]) -> None:
    server, url = own
    actuator, chosen = lever(url, write={"path": "/admin/batching", "body": "{current}"})
    actuator.apply(chosen, SIZE_UP, key="plan:batch_size")
    assert server.config == {"batching": {"max rows": 16, "wait": [0.01]}, "greeting": "hello {name}"}


def test_a_part_of_what_was_shown_goes_where_the_body_has_a_place_for_it(own: tuple[Own, str]) -> None:
    server, url = own
    write = {"path": "/admin/batching", "current_at": "/batching", "body": {"batching": "{current}", "why": "slotune"}}
    actuator, chosen = lever(url, write=write)
    actuator.apply(chosen, UP, key="plan:batch_size")
    assert server.config == {"batching": {"max rows": 16, "wait": [0.0025]}, "why": "slotune"}


def test_a_knob_that_a_change_does_not_name_is_sent_as_it_stands(own: tuple[Own, str]) -> None:
    server, url = own
    actuator, chosen = lever(url)
    actuator.apply(chosen, SIZE_UP, key="plan:batch_size")
    assert server.config["batching"] == {"max rows": 16, "wait": [0.01]}


def test_a_knob_in_the_path(own: tuple[Own, str]) -> None:
    server, url = own
    read = {"path": "/admin/batching", "batch_size_at": "/batching/max rows"}
    actuator, chosen = lever(url, read=read, write={"method": "POST", "path": "/resize/{batch_size}"})
    actuator.apply(chosen, SIZE_UP, key="plan:batch_size")
    assert server.config["batching"]["max rows"] == 16


def test_the_connections_credentials_go_along_and_nobody_replaces_them(own: tuple[Own, str]) -> None:
    server, url = own
    write = {"path": "/admin/batching", "body": BODY, "headers": {"X-Team": "b", "Accept": "text/plain"}}
    extra = {"token": "secret", "headers": {"x-team": "a"}}
    actuator, chosen = lever(url, write=write, extra=extra)
    actuator.apply(chosen, UP, key="plan:batch_size")
    assert server.seen == ["Bearer secret", "a"]


def test_a_refusal_has_the_servers_words_and_changes_nothing(own: tuple[Own, str]) -> None:
    server, url = own
    actuator, chosen = lever(url)
    change = Change(lever="batch_size", old=UP.old, new={"batch_size": 64})
    with pytest.raises(ControlRefused, match=r"answered 422.*max rows must be at most 32"):
        actuator.apply(chosen, change, key="plan:batch_size")
    assert server.written == []


def test_all_replicas_or_none(own: tuple[Own, str]) -> None:
    first, url = own
    second = Own()
    with running(second) as other:
        actuator, chosen = lever(url, other)
        assert set(actuator.replicas(chosen)) == {"r0", "r1"}
        actuator.apply_to(chosen, UP, "r1", key="plan:batch_size")
        assert (first.config["batching"]["max rows"], second.config["batching"]["max rows"]) == (4, 16)
        actuator.apply(chosen, UP, key="plan:batch_size")
        assert first.config["batching"]["max rows"] == 16


def test_a_replica_that_refuses_takes_the_others_back(own: tuple[Own, str]) -> None:
    first, url = own
    with config_endpoint({"batching": {"max rows": 4, "wait": [0.01]}}) as second:
        actuator, chosen = lever(url, second.url)
        second.plan = [("PUT", 403)]
        with pytest.raises(ControlRefused, match="403"):
            actuator.apply(chosen, UP, key="plan:batch_size")
    assert first.config["batching"] == {"max rows": 4, "wait": [0.01]}


def test_an_answer_of_another_shape_names_the_pointer(own: tuple[Own, str]) -> None:
    server, url = own
    actuator, chosen = lever(url)
    server.config = {"batching": {"wait": []}}
    with pytest.raises(ControlRefused, match="/admin/batching: in the answer nothing stands at /batching/max rows"):
        actuator.read(chosen)
    server.config = {"batching": {"max rows": "many", "wait": [0.01]}}
    with pytest.raises(ControlRefused, match="no usable batch size at /batching/max rows \\('many'\\)"):
        actuator.read(chosen)
    server.config = {"batching": {"max rows": 8, "wait": []}}
    with pytest.raises(ControlRefused, match="the list there has 0 entries"):
        actuator.read(chosen)


def test_numbers_as_texts_are_read_and_written_back_as_texts(own: tuple[Own, str]) -> None:
    server, url = own
    server.config = {"batching": {"max rows": "4", "wait": [0.01]}}
    actuator, chosen = lever(url, write={"path": "/admin/batching", "body": "{current}"})
    assert actuator.read(chosen).values["batch_size"] == 4
    actuator.apply(chosen, SIZE_UP, key="plan:batch_size")
    assert server.config["batching"]["max rows"] == "16"


def test_somebody_elses_value_is_left_alone(own: tuple[Own, str]) -> None:
    server, url = own
    server.config["batching"]["max rows"] = 6
    actuator, chosen = lever(url)
    with pytest.raises(NotOwner):
        actuator.apply(chosen, UP, key="plan:batch_size")
    assert server.written == []


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("ignore", NotApplied),
        ("drop", OutcomeUnknown),
        (503, OutcomeUnknown),
        (302, OutcomeUnknown),
        (404, ControlRefused),
    ],
)
def test_what_is_shown_counts_not_what_is_said(what: object, error: type[Exception]) -> None:
    with config_endpoint({"batch_size": 4}) as endpoint:
        read = {"path": "/config", "batch_size_at": "/batch_size"}
        write = {"method": "POST", "path": "/config", "body": {"batch_size": "{batch_size}"}}
        actuator, chosen = lever(endpoint.url, read=read, write=write, request_timeout_s=0.3)
        endpoint.plan = [("POST", what)]
        with pytest.raises(error):
            actuator.apply(chosen, SIZE_UP, key="plan:batch_size")
        assert endpoint.config["batch_size"] == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"read": {"path": "admin", "batch_size_at": "/a"}}, "begins with a slash"),
        ({"read": {"path": "/a b", "batch_size_at": "/a"}}, "no blanks"),
        ({"read": {"path": "/a", "batch_size_at": "a.b"}}, "begins with a slash: write /a.b"),
        ({"read": {"path": "/a", "batch_size_at": "/a~b"}}, "~ is written ~0"),
        ({"read": {"path": "/{batch_size}", "batch_size_at": "/a"}}, "nothing to fill in"),
        ({"write": {"path": "/a", "body": {"n": 8}}}, "write sets no batch_size: put {batch_size} into its path or body"),
        ({"write": {"path": "/a", "body": {"n": "{batch_size}"}}}, "write sets no batch_timeout"),
        ({"write": {"path": "/a", "body": ["{batchsize}"]}}, "there is no place {batchsize}; known: {batch_size}"),
        ({"write": {"path": "/{current}"}}, "cannot stand in a path"),
        ({"write": {"path": "/a", "body": {"n": {"batch_size": None}}}}, 'without quotes is a mapping in YAML: write "{batch_size}"'),
        ({"write": {"path": "/a", "body": "{current}", "current_at": "/other"}}, "write sets no batch_size"),
        ({"write": {"path": "/a", "body": BODY, "headers": {"Authorization": "x"}}}, "credentials belong into the connection"),
        ({"write": {"path": "/a", "body": BODY, "headers": {"Host": "x"}}}, "follows from the address"),
        ({"write": {"path": "/a", "body": BODY, "headers": {"X": "a\r\nB: c"}}}, "no HTTP header"),
        ({"write": {"path": "/a", "body": BODY, "method": "DELETE"}}, "'PUT', 'POST' or 'PATCH'"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_meant_is_a_sentence(options: dict[str, Any], words: str) -> None:
    actuator, chosen = lever("http://127.0.0.1:9", **options)
    with pytest.raises(ConfigError, match=r"services\.ranker\.levers\.batch_size") as caught:
        actuator.read(chosen)
    assert words in str(caught.value)


def test_pointers_are_those_of_the_standard() -> None:
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, 'k"l': 6}
    for pointer, value in {"": document, "/foo/0": "bar", "/": 0, "/a~1b": 1, "/m~0n": 8, '/k"l': 6}.items():
        assert pointers.find(document, pointers.steps(pointer)) == value
    for pointer in ("/foo/2", "/foo/-", "/foo/01", "/foo/bar", "/nope", "/a~1b/c"):
        with pytest.raises(pointers.NoSuchPlace):
            pointers.find(document, pointers.steps(pointer))
    changed = pointers.replaced(document, ["foo", "1"], 9)
    assert (changed["foo"], document["foo"]) == (["bar", 9], ["bar", "baz"])


def test_what_is_filled_into_a_path_leads_nowhere_else() -> None:
    assert (
        templates.path("/m/{batch_size}?t={batch_timeout}", {"batch_size": "../x", "batch_timeout": 0.00001})
        == "/m/..%2Fx?t=0.00001"
    )
    assert templates.body({"{batch_size} rows": ["{batch_size}", "n={batch_size}"]}, {"batch_size": 8}) == {
        "8 rows": [8, "n=8"]
    }


OF_A_SERVICE = """
services:
  - name: ranker
    serving: generic_histogram
    selectors: {job: ranker}
    slo: {p95: 100ms}
"""


def test_the_examples_of_the_page_are_levers_and_the_declarative_one_keeps_the_application() -> None:
    page = (Path(__file__).parents[3] / "docs" / "actuators.md").read_text()
    examples = re.findall(r"```yaml[^\n]*\n(levers:.*?)```", page, re.DOTALL)
    levers = [loads(OF_A_SERVICE + textwrap.indent(block, "    ")).services[0].levers.batch_size for block in examples]
    assert len(levers) >= 4
    (chosen,) = [one for one in levers if isinstance(one, HttpOptions) and "applications" in str(one.write.body)]
    application = {
        "name": "ranker",
        "import_path": "a:b",
        "deployments": [{"name": "R", "user_config": {"max_batch_size": 4, "batch_wait_timeout_s": 0.01, "x": 1}}],
    }
    shown = {"applications": {"ranker": {"status": "RUNNING", "deployed_app_config": application}}}
    with config_endpoint(shown) as endpoint:
        actuator, one = lever(endpoint.url, read=chosen.read.model_dump(), write=chosen.write.model_dump())
        with pytest.raises(NotApplied, match="read-back shows"):
            actuator.apply(one, SIZE_UP, key="plan:batch_size")  # a PUT changes nothing at this stand-in
        sent = next(body for method, body in endpoint.calls if method == "PUT")
    application["deployments"] = [{"name": "R", "user_config": {"max_batch_size": 16, "batch_wait_timeout_s": 0.01, "x": 1}}]
    assert sent == {"applications": [application]}
