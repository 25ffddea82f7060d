"""The page in a real browser: every order a person can give is given by mouse and keys, at full and at narrow width."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import uvicorn

from demo.browser import Browser, find
from demo.processes import free_port, wait_until
from slotune.views.spoken import spoken
from slotune.web.app import create_app
from slotune.web.guards import whoever
from tests.fakes.reports import plan as plan_of
from tests.slotune.story import told  # noqa: F401 (a fixture)
from tuning.loop import records
from tuning.model import OpenChange

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(find() is None, reason="there is no Chromium on this machine"),
]
PAGES = ("/", "/services/ranker", "/incidents", "/changes", "/effects", "/review", "/health")


@pytest.fixture(scope="module")
def page_of(told):  # noqa: F811
    """(address, the reading, what was started) of a page on which ann may act; one change of ranker is on lease."""
    ledger, started = told.reader, []
    plan = plan_of(id="leased-plan", incident_id="leased", service="ranker", decided_at_s=told.now_s - 60, lease_s=3600.0)
    ledger.put(records.plan_record(plan))
    opened = OpenChange(plan_id=plan.id, service="ranker", incident_id="leased", state="intended", plan=plan,
                        opened_at_s=told.now_s - 50)  # fmt: skip
    ledger.open_change(opened, records.intent_record(plan, told.now_s - 50))
    until = records.noted(plan, f"{plan.id}:leased", "keep", {"leased": True}, told.now_s - 40)
    ledger.update_change(plan.id, "leased", until, expires_at_s=told.now_s + 3600)

    def start(attempt):
        started.append(attempt)
        return "/effects"

    app = create_app(lambda: told, write=ledger.put, who=whoever("ann"), start=start, starter=whoever("ann"))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 30.0, "the page")
    yield f"http://127.0.0.1:{port}", told, started
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser():
    with Browser(find()) as made:
        yield made


def fresh(reading):
    """What people said by now."""
    return spoken(replace(reading, memory=type(reading.memory)()))


def test_a_service_is_paused_and_resumed_with_the_reason_shown(browser, page_of):
    address, reading, _ = page_of
    page = browser.page()
    page.open(f"{address}/")
    page.click("ranker")
    page.wait_for("Tell slotune")
    page.write("form input[name=why]", "a load test <b>now</b>")
    page.click("Pause")
    page.wait_for("ann paused every lever until")
    page.wait_for(": a load test <b>now</b>")
    (pause,) = fresh(reading).pauses
    assert (pause.service, pause.who, pause.why) == ("ranker", "ann", "a load test <b>now</b>")
    page.click("Resume")
    page.wait("!document.body.innerText.includes('ann paused')", 30.0, "the end of the pause")
    assert fresh(reading).pauses == ()


def test_a_change_is_handed_back(browser, page_of):
    address, reading, _ = page_of
    page = browser.page()
    page.open(f"{address}/services/ranker")
    page.click("Hand")
    wait_until(lambda: fresh(reading).said[:1] and fresh(reading).said[0].what == "hand_back", 30.0, "the order")
    (given, *_) = fresh(reading).said
    assert (given.what, given.about, given.who) == ("hand_back", "leased-plan", "ann")


def test_an_incident_is_called_what_it_was(browser, page_of):
    address, reading, _ = page_of
    page = browser.page()
    page.open(f"{address}/services/ranker")
    page.click("2027-01-15")
    page.click("It was none")
    page.wait_for("no real problem")
    page.click("This was a real problem")
    page.wait_for("this was a real problem")
    assert list(fresh(reading).labels.values()) == ["real"]


def test_a_run_is_started_as_a_dry_run_unless_told_otherwise(browser, page_of):
    address, _, started = page_of
    page = browser.page()
    page.open(f"{address}/services/ranker")
    page.click("Start tune_service")
    page.wait_for("What each lever achieved")
    assert [(one.service, one.dry_run, one.who) for one in started] == [("ranker", True, "ann")]


@pytest.mark.parametrize("path", PAGES)
def test_nothing_sticks_out_of_a_narrow_window(browser, page_of, path):
    page = browser.page(width=400, dark=True)
    page.open(page_of[0] + path)
    assert page.wide() <= 400, path
