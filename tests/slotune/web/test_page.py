"""The page over HTTP: what it shows, what it escapes, and whom it lets in."""

from __future__ import annotations

import dataclasses
import re
import threading

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from detection.errors import ConfigError
from slotune.views import incidents
from slotune.views.memory import Memory
from slotune.views.reading import Reading
from slotune.web.app import create_app
from slotune.web.exposition import Family
from slotune.web.guards import from_here, is_loopback, whoever, with_token
from slotune.web.metrics import exposition
from tests.fakes.world import KeptMails, VersionedSource, World, parts
from tuning.errors import LedgerUnavailable
from tuning.ledger import SqlLedger
from tuning.loop.alive import run_of
from tuning.loop.records import BEGUN
from tuning.model import Record, Release
from tuning.orders import answer_to, orders_of
from tuning.query import Query
from tuning.releases import ReleaseVerdict, verdict_record
from tuning.releases import record as release_record

PATHS = ("/", "/incidents", "/changes", "/effects", "/review", "/health", "/services/ranker", "/services/silent", "/incidents/nasty")


@pytest.fixture(scope="module")
def client(told) -> TestClient:
    return TestClient(create_app(lambda: told))


@pytest.mark.parametrize("path", PATHS)
def test_every_page_answers_and_escapes(client, path):
    answer = client.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert "<script" not in answer.text and "\x1b" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_hostile_text_is_shown_as_text(client):
    text = client.get("/incidents/nasty").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "\\x1b[31m" in text


def test_every_link_leads_somewhere(client):
    seen, todo = set(), ["/"]
    while todo:
        path = todo.pop()
        seen.add(path)
        answer = client.get(path)
        assert answer.status_code == 200, path
        todo += [p for p in re.findall(r'href="(/[^"]*)"', answer.text) if p not in seen and p not in todo]
    assert len(seen) > 8


def test_the_incident_shows_plan_verdict_and_picture(client, told):
    row = next(r for r in incidents.rows(told) if r.service == "ranker")
    text = client.get(f"/incidents/{row.id}").text
    for words in ("Cause: load surge", "improved, resolved", "options were weighed", 'class="curve"', "SLO 150 ms", "Batch size 1 →"):
        assert words in text


@pytest.mark.parametrize("path", ["/incidents/none", "/services/none", "/services/%3Cb%3E", "/incidents/..%2f..%2fetc"])
def test_what_is_not_there_is_a_sentence(client, path):
    answer = client.get(path)
    assert answer.status_code == 404 and "<b>" not in answer.text.replace('<a class="brand"', "")


def test_an_alert_about_a_service_leads_to_its_newest_incident(client, told):
    found = client.get("/services/ranker/incident")
    assert found.status_code == 200 and "/incidents/" in str(found.url), "followed to the incident's page"
    none = client.get("/services/nobody-knows/incident")
    assert none.status_code == 404 and str(none.url).endswith("/services/nobody-knows")


@pytest.mark.parametrize("error", [LedgerUnavailable("There is no ledger at sqlite:///x yet"), ConfigError("services.yaml:3: <no>")])
def test_what_cannot_be_read_is_a_sentence(error):
    def read():
        raise error

    answer = TestClient(create_app(read)).get("/")
    assert answer.status_code == 503 and "This cannot be shown now" in answer.text and "<no>" not in answer.text


def test_links_stay_under_the_place_where_it_is_mounted(told):
    from fastapi import FastAPI

    outer = FastAPI()
    outer.mount("/slotune", create_app(lambda: told))
    text = TestClient(outer).get("/slotune/").text
    assert set(re.findall(r'href="(/[^/"]*)', text)) == {"/slotune"}


def test_a_guard_keeps_people_out_of_everything_but_the_style(told):
    def nobody():
        raise HTTPException(401, "no")

    client = TestClient(create_app(lambda: told, may_read=[nobody]))
    assert [client.get(path).status_code for path in (*PATHS, "/metrics")] == [401] * (len(PATHS) + 1)
    assert client.get("/style.css").status_code == 200


def test_metrics_may_have_a_guard_of_their_own(told):
    def nobody():
        raise HTTPException(401, "no")

    client = TestClient(create_app(lambda: told, may_read=[nobody], may_scrape=[with_token("t")]))
    assert client.get("/metrics").status_code == 401 and client.get("/").status_code == 401
    with_header = {"Authorization": "Bearer t"}
    assert client.get("/metrics", headers=with_header).status_code == 200
    assert client.get("/", headers=with_header).status_code == 401


def test_a_token_is_asked_for(told):
    client = TestClient(create_app(lambda: told, may_read=[with_token("s3cret")]))
    assert client.get("/").status_code == 401
    for header in ("Bearer wrong", "Basic !!", "Basic d3Jvbmc6", "Bearer", "", "Basic \xff"):
        assert client.get("/", headers={"Authorization": header.encode("latin-1")}).status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert client.get("/", auth=("any", "s3cret")).status_code == 200


def test_another_sites_name_for_this_machine_is_refused(told):
    client = TestClient(create_app(lambda: told, may_read=[from_here(8642)]))
    assert client.get("/", headers={"Host": "evil.example:8642"}).status_code == 403
    assert client.get("/", headers={"Host": "127.0.0.1:8642"}).status_code == 200
    assert client.get("/", headers={"Host": "localhost"}).status_code == 200


@pytest.fixture
def acting(told):
    """A page on which ann may act: (client, what was written)."""
    written = []
    app = create_app(lambda: told, write=written.append, who=whoever("ann"))
    return TestClient(app, base_url="http://testserver", follow_redirects=False), written


def test_a_pause_is_written_with_name_time_and_reason(acting, told):
    client, written = acting
    form = {"what": "pause", "service": "ranker", "lever": "batch_size", "direction": "up", "for": "1h", "why": "<b>load test</b>"}
    answer = client.post("/actions", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/services/ranker")
    (given,) = orders_of(written)
    assert (given.who, given.what, given.service, given.lever, given.direction) == ("ann", "pause", "ranker", "batch_size", "up")
    assert given.until_s == told.now_s + 3600 and given.at_s == told.now_s and given.why == "<b>load test</b>"


def test_a_label_is_written_and_shown(acting, told):
    client, written = acting
    assert client.post("/actions", data={"what": "label", "incident": "nasty", "label": "not_real"}).headers["location"] == "/incidents/nasty"
    (given,) = orders_of(written)
    assert (given.about, given.label, given.service) == ("nasty", "not_real", "silent")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({}, "no action"), ({"what": "dance"}, "no action"), ({"what": "pause", "service": "ranker"}, "say why"),
        ({"what": "pause", "service": "none", "why": "x"}, "no service is called"), ({"what": "pause", "service": "ranker", "lever": "replicas", "why": "x"}, "no lever"),
        ({"what": "pause", "why": "x", "for": "99y"}, "a pause lasts"), ({"what": "pause", "why": "x", "direction": "left"}, "up, down or both"),
        ({"what": "hand_back", "plan": "p"}, "not on lease"), ({"what": "label", "incident": "none", "label": "real"}, "no incident"),
        ({"what": "label", "incident": "nasty", "label": "maybe"}, "real or not_real"), ({"what": "pause", "why": "x" * 20_000}, "larger than"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_a_sentence_and_writes_nothing(acting, form, words):
    client, written = acting
    answer = client.post("/actions", data=form)
    assert answer.status_code == 400 and words in answer.text and written == []


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}],
)
def test_a_form_of_another_site_is_refused(acting, headers):
    client, written = acting
    answer = client.post("/actions", data={"what": "pause", "why": "x"}, headers=headers)
    assert answer.status_code == 403 and written == []


def test_the_pages_own_form_is_taken(acting):
    client, written = acting
    headers = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/actions", data={"what": "pause", "why": "x"}, headers=headers).headers["location"] == "/"
    assert len(written) == 1
    assert "Pause all changes" in client.get("/").text and "This was a real problem" in client.get("/incidents/nasty").text


def test_a_page_that_only_reads_has_no_forms(client):
    assert "<form" not in client.get("/").text + client.get("/services/ranker").text + client.get("/incidents/nasty").text
    assert client.post("/actions", data={"what": "pause", "why": "x"}).status_code == 403


@pytest.mark.parametrize(
    ("host", "yes"), [("127.0.0.1", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False), ("example.com", False)]
)
def test_what_is_loopback(host, yes):
    assert is_loopback(host) is yes


def test_the_metrics_are_true_and_well_formed(client):
    text = client.get("/metrics").text
    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }
    assert samples["slotune_services", ()] == 2
    assert samples["slotune_slo_p95_seconds", (("service", "ranker"),)] == 0.15
    assert samples["slotune_attempts_total", (("lever", "batch_size"), ("service", "ranker"), ("verdict", "improved"))] == 1
    assert samples["slotune_time_to_resolve_seconds_count", ()] == 1
    assert samples["slotune_unreadable", (("part", "series"), ("service", "silent"))] == 1
    assert 0 < samples["slotune_signal", (("service", "ranker"), ("signal", "p95_ms"))] < 150
    assert samples["slotune_slo_broken", (("service", "ranker"),)] == 0
    assert ("slotune_slo_broken", (("service", "silent"),)) not in samples  # nothing is known of it


def started(told, asked, **fields):
    """What the page answers to a form that starts an attempt; `asked` gets what it was started with."""

    def start(attempt):
        asked.append(attempt)
        return "/dags/tune_service/runs/1"

    app = create_app(lambda: told, start=start, starter=whoever("ann"), write=lambda record: True, who=whoever("ann"))
    return TestClient(app).post("/start", data=fields, follow_redirects=False)


def test_a_run_is_started_from_the_form(told):
    asked = []
    answer = started(told, asked, service="ranker", lever="let it choose", dry_run="yes", why="a try")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dags/tune_service/runs/1")
    (one,) = asked
    assert (one.service, one.lever, one.dry_run, one.who, one.why) == ("ranker", "let it choose", True, "ann", "a try")


@pytest.mark.parametrize("fields", [{"service": "nobody"}, {"service": ""}, {"service": "ranker", "lever": "gravity"}])
def test_a_form_that_names_nothing_starts_nothing(told, fields):
    asked = []
    answer = started(told, asked, **fields)
    assert answer.status_code == 400 and asked == [] and "Nothing was started" in answer.text


def test_where_nothing_can_be_started_the_page_says_how(acting):
    client, _ = acting
    page = client.get("/services/ranker").text
    assert "airflow dags trigger tune_service" in page and "Start tune_service" not in page
    assert client.post("/start", data={"service": "ranker"}).status_code == 403


def test_the_fleet_can_be_searched(client):
    assert "silent" not in client.get("/?q=RANK").text.split("<tbody>")[1]
    only = client.get("/?state=no_data").text.split("<tbody>")[1]
    assert "silent" in only and "/services/ranker" not in only
    assert "No service is like that" in client.get("/?q=nothing").text


def test_the_review_shows_figures_with_their_counts_and_who_may_be_trusted_with_more(client):
    page = client.get("/review?days=1").text
    assert "1 of 1" in page and "too few to rate" in page and "at least 90 %" in page
    assert "approve to act" in page and "no incident was seen yet" in page
    assert client.get("/review?days=0").status_code == 422


def test_a_scrape_that_cannot_wait_for_the_history_says_so(told):
    class Slow(type(told.reader)):
        """The same ledger, whose history takes a while."""

        def written(self, *args, **named):
            let_on.wait(30)
            yield from super().written(*args, **named)

    let_on = threading.Event()
    slow = dataclasses.replace(told, reader=Slow(told.reader._url), memory=Memory())
    text = exposition(slow, within_s=0.0)
    assert "slotune_history_read 0.0" in text and "slotune_attempts_total" not in text
    let_on.set()
    text = exposition(slow, within_s=30.0)
    assert "slotune_history_read 1.0" in text and 'slotune_attempts_total{service="ranker"' in text


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "{}", "ä,b"])
def test_labels_from_outside_come_back_as_they_were(value):
    family = Family("gauge", "x", "A thing.", ["service", "part"])
    family.add([value, "p"], float("nan"))
    family.add(["s", value], float("inf"))
    (found,) = text_string_to_metric_families(family.text())
    assert [sample.labels for sample in found.samples] == [
        {"service": value, "part": "p"}, {"service": "s", "part": value}
    ]  # fmt: skip


def test_a_histogram_is_cumulative():
    family = Family("histogram", "x_seconds", "A time.")
    family.add_histogram([1.0, 5.0, 50.0], (2.0, 10.0))
    (found,) = text_string_to_metric_families(family.text())
    values = {(s.name, s.labels.get("le")): s.value for s in found.samples}
    assert values == {
        ("slotune_x_seconds_bucket", "2"): 1.0, ("slotune_x_seconds_bucket", "10"): 2.0,
        ("slotune_x_seconds_bucket", "+Inf"): 3.0, ("slotune_x_seconds_sum", None): 56.0,
        ("slotune_x_seconds_count", None): 3.0,
    }  # fmt: skip


def test_a_plan_that_waits_for_a_yes_leads_to_where_it_is_given(tmp_path, told):
    ledger = SqlLedger.open(f"sqlite:///{tmp_path / 'l.sqlite'}")
    opened = told.reader.find(Query(kinds=("open_incidents",), services=("ranker",)))[-1]
    plan = told.reader.find(Query(kinds=("choose_action",), services=("ranker",)))[-1]
    ledger.put(opened)
    ledger.put(plan.model_copy(update={"at_s": told.now_s - 60, "body": {**plan.body, "mode": "approve"}}))
    seen = dataclasses.replace(told, reader=ledger, memory=Memory())
    page = TestClient(create_app(lambda: seen, answer=lambda row: f"/required/{row.plan_id}"))
    for path in ("/", f"/incidents/{opened.incident_id}"):
        assert "waits for a yes" in page.get(path).text and f'href="/required/{plan.id}"' in page.get(path).text
    assert "under Required Actions" in TestClient(create_app(lambda: seen)).get("/").text


@pytest.mark.parametrize("word", ["approve", "reject"])
def test_a_plan_of_slotune_run_is_answered_on_the_page_once(tmp_path, told, word):
    ledger = SqlLedger.open(f"sqlite:///{tmp_path / 'l.sqlite'}")
    opened = told.reader.find(Query(kinds=("open_incidents",), services=("ranker",)))[-1]
    plan = told.reader.find(Query(kinds=("choose_action",), services=("ranker",)))[-1]
    number = plan.body["attempt"]
    begun = Record(
        id="tune__ranker:begun:0", kind=BEGUN, service="ranker", parent_id=opened.incident_id, at_s=told.now_s - 60,
        incident_id=opened.incident_id, body={"run": run_of("here", "tune__ranker"), "attempt": number},
    )  # fmt: skip
    for record in (opened, begun, plan.model_copy(update={"at_s": told.now_s - 60, "body": {**plan.body, "mode": "approve"}})):
        ledger.put(record)
    seen = dataclasses.replace(told, reader=ledger, memory=Memory())
    app = create_app(lambda: seen, write=ledger.put, who=whoever("ann"))
    page = TestClient(app, base_url="http://testserver", follow_redirects=False)
    assert 'name="what" value="approve"' in page.get("/").text
    assert f"slotune approve {plan.id}" in TestClient(create_app(lambda: seen)).get("/").text
    form = {"what": word, "plan": plan.id, "why": "after the demo"}
    assert page.post("/actions", data=form).status_code == 303
    given = answer_to(orders_of(ledger.find(Query(kinds=("order",)))), plan.id)
    assert given is not None and (given.what, given.who, given.why) == (word, "ann", "after the demo")
    again = page.post("/actions", data=form)
    assert again.status_code == 400 and "waits for no answer here" in again.text
    assert "waits for a yes" not in page.get("/").text


def test_services_that_are_configured_no_more_take_no_room_in_the_metrics(tmp_path, told):
    ledger = SqlLedger.open(f"sqlite:///{tmp_path / 'l.sqlite'}")
    (*_, opened) = told.reader.find(Query(kinds=("open_incidents",), services=("ranker",)))
    for number in range(50):
        name = f"gone-{number}"
        ledger.put(opened.model_copy(update={"id": name, "incident_id": name, "service": name}))
    ledger.put(opened)
    text = exposition(dataclasses.replace(told, reader=ledger, memory=Memory()), within_s=30.0)
    counted = [line for line in text.splitlines() if line.startswith("slotune_incidents_total{")]
    assert counted == ['slotune_incidents_total{service="ranker"} 1.0']


@pytest.mark.parametrize(
    ("method", "accept", "status"),
    [("GET", "text/html,*/*", 307), ("GET", "*/*", 401), ("POST", "text/html", 401)],
)
def test_a_person_without_a_session_is_led_to_the_login_and_back(told, method, accept, status):
    def nobody_is_known():
        raise HTTPException(401, "who are you?")

    app = create_app(lambda: told, may_read=[nobody_is_known], login=lambda path: f"/login?next={path}")
    outer = FastAPI()
    outer.mount("/slotune", app)
    path = "/slotune/actions" if method == "POST" else "/slotune/review?days=30"
    answer = TestClient(outer).request(method, path, headers={"accept": accept}, follow_redirects=False)
    assert answer.status_code == status
    if status == 307:
        assert answer.headers["location"] == f"/login?next={path}"


def test_the_releases_of_a_service_are_shown_with_hands_and_verdict(tmp_path):
    world = World()
    ledger = SqlLedger.open(f"sqlite:///{tmp_path / 'l.sqlite'}")
    loop = dataclasses.replace(parts(world, ledger, KeptMails()), source=VersionedSource(world))
    one = Release(id="r1", service="ranker", old="6", new="7<b>", at_s=world.now_s - 900, seen_s=world.now_s - 880)
    ours = Release(id="r2", service="ranker", old="7<b>", new="6", at_s=world.now_s - 60, seen_s=world.now_s, hands="slotune")
    ledger.put(release_record(one))
    ledger.put(release_record(ours))
    ledger.put(verdict_record(ReleaseVerdict(release=one, at_s=world.now_s, verdict="worse", sentence="version 7 is worse")))
    text = TestClient(create_app(lambda: Reading(ledger, ledger.get_blob, loop.settings, world.now_s))).get("/services/ranker").text
    assert "6 → 7&lt;b&gt;" in text and "other hands" in text and "version 7 is worse" in text
    assert "proven like any change" in text and "7<b>" not in text
