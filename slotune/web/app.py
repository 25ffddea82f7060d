"""The page as a FastAPI application: server-rendered, no script, every text from outside escaped.

`create_app` is given how to read and who may look; it knows neither Airflow nor where the ledger is. Every request
reads in a worker thread and writes nothing, so that nobody who looks can hold up the loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from detection import own_signals
from detection.errors import ConfigError, SlotuneError
from detection.outside_text import printable
from detection.signals import of_unit, shown, title
from slotune.views import approvals, changes, effects, fleet, health, incidents, labels, releases, review
from slotune.views.latest import latest
from slotune.views.memory import Memory
from slotune.views.reading import Reading
from slotune.views.spoken import spoken
from slotune.web import actions, words
from slotune.web.alerts_in import TOO_LARGE, Take, Taken, body_of
from slotune.web.exposition import CONTENT_TYPE
from slotune.web.guards import Guard, no_token, nobody, same_site
from slotune.web.metrics import exposition
from slotune.web.pictures import curve, sparkline
from slotune.web.review_pictures import day_bars, prediction_dots
from tuning.labels import said_of
from tuning.model import Record
from tuning.orders import Order, order_record
from tuning.report.review import DAY_S

REFRESH_S = 30
MOST_ROWS = 200
"""Services on the fleet page unless all are asked for: the worst come first, and a person reads no thousand rows."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def create_app(
    read: Callable[[], Reading],
    *,
    may_read: Sequence[Guard] = (),
    may_scrape: Sequence[Guard] | None = None,
    write: Callable[[Record], object] | None = None,
    who: Guard = nobody,
    start: Callable[[actions.Attempt], str] | None = None,
    starter: Guard = nobody,
    answer: Callable[[approvals.Waiting], str] | None = None,
    login: Callable[[str], str] | None = None,
    ahead: bool = False,
    take: Take | None = None,
    may_alert: Guard = no_token,
) -> FastAPI:
    """read: a Reading of this moment; raises SlotuneError where the ledger or the settings cannot be read.

    may_read: FastAPI dependencies that refuse (401, 403) whoever may not look. may_scrape: the same for /metrics, which
    a machine asks that cannot log in (None: as may_read).
    write: puts a record into the ledger; None: the page only reads. who: a dependency that answers the name of whoever
    acts, and refuses whoever may not. start: begins a run of tune_service and answers where it can be watched; None:
    nothing can be started here. starter: as who, for starting. answer: where a waiting plan can be answered, "" where
    that is not known. login: where a person whom may_read does not know logs in to come back to the path given.
    ahead: read the history before anybody asks. take: what a webhook's body leads to; may_alert: a dependency that
    refuses whoever may not send one.
    """
    app = FastAPI(title="slotune", docs_url=None, redoc_url=None, openapi_url=None)
    guards = [Depends(guard) for guard in may_read]
    scrape = guards if may_scrape is None else [Depends(guard) for guard in may_scrape]
    read = _remembering(read)
    if ahead:
        threading.Thread(target=_read_ahead, args=(read,), daemon=True).start()
    pages = _Pages(_environment(), acts=write is not None)

    @app.middleware("http")
    async def with_headers(request: Request, call_next: Callable[[Request], Any]) -> Response:
        response: Response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(SlotuneError)
    async def in_a_sentence(request: Request, error: SlotuneError) -> Response:
        return pages.missing(request, f"This cannot be shown now: {error}", status=503)

    @app.exception_handler(HTTPException)
    async def to_the_login(request: Request, error: HTTPException) -> Response:
        reads = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if error.status_code == 401 and login is not None and reads:
            return RedirectResponse(login(f"{request.url.path}{request.url.query and '?'}{request.url.query}"))
        return await http_exception_handler(request, error)

    @app.get("/style.css", include_in_schema=False)
    def style() -> Response:
        text = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
        return Response(text, media_type="text/css", headers={"Cache-Control": "max-age=300"})

    @app.get("/", dependencies=guards)
    def home(request: Request, q: str = "", state: str = "", every: bool = False) -> Response:
        seen = read()
        whole, well = fleet.fleet(seen), health.health(seen)
        found = fleet.chosen(whole.rows, words=q, state=state)
        rows = found if every else found[:MOST_ROWS]
        told = {"fleet": whole, "health": well, "pauses": _of_all(seen), "rows": rows, "found": len(found)}
        told |= {"q": q, "state": state, "asked": _asked(seen, answer)}
        refresh = None if q or state else REFRESH_S
        return pages.show(request, seen, "fleet.html", here="Fleet", refresh=refresh, **told)

    @app.get("/services/{name}/incident", dependencies=guards)
    def newest_incident(request: Request, name: str) -> Response:
        """Where alerts lead, which know the service alone."""
        found = incidents.rows(read(), service=name, limit=1)
        place = f"/incidents/{quote(found[0].id, safe='')}" if found else f"/services/{quote(name, safe='')}"
        return RedirectResponse(f"{_root(request)}{place}", status_code=303)

    @app.get("/services/{name:path}", dependencies=guards)
    def service(request: Request, name: str) -> Response:
        seen = read()
        known = seen.services.get(name)
        if known is None:
            return pages.missing(request, f"No service is called {name!r} in services.yaml.")
        newest = latest(seen)
        row = fleet.service_row(
            known, newest, incidents.open_rows(seen).get(name), changes.open_by_service(seen).get(name), seen.now_s
        )
        numbers = newest.services.get(name)
        values = numbers.values if numbers is not None else {}
        own = own_signals.table(known)
        signals = [
            (signal, of_unit(own[signal].unit, value) if signal in own else shown(signal, value),
             own[signal].title if signal in own else title(signal))
            for signal, value in sorted(values.items())
        ]  # fmt: skip
        rows = incidents.rows(seen, service=name, limit=30)
        return pages.show(
            request,
            seen,
            "service.html",
            here="Fleet",
            service=known,
            row=row,
            signals=signals,
            incidents=rows,
            releases=releases.of_service(seen, name),
            pauses=spoken(seen).about(name),
            readiness=review.ready(seen)[name],
            steps=labels.steps(seen, name),
            effects=effects.of_service(seen, name),
            held_back=effects.held_back(seen, name),
            starts=start is not None,
        )

    @app.get("/incidents", dependencies=guards)
    def incident_list(request: Request) -> Response:
        seen = read()
        return pages.show(request, seen, "incidents.html", here="Incidents", incidents=incidents.rows(seen, limit=200))

    @app.get("/incidents/{incident_id}", dependencies=guards)
    def incident(request: Request, incident_id: str) -> Response:
        seen = read()
        page = incidents.page(seen, incident_id)
        if page is None:
            return pages.missing(request, f"The ledger holds no incident {incident_id!r}.")
        words = said_of(reversed(spoken(seen).said)).get(incident_id, [])
        asked = [(row, url) for row, url in _asked(seen, answer) if row.incident_id == incident_id]
        return pages.show(request, seen, "incident.html", here="Incidents", page=page, said=words, asked=asked)

    @app.get("/changes", dependencies=guards)
    def change_list(request: Request) -> Response:
        seen = read()
        return pages.show(request, seen, "changes.html", here="Changes", changes=changes.in_force(seen))

    @app.get("/effects", dependencies=guards)
    def effect_list(request: Request) -> Response:
        seen = read()
        return pages.show(request, seen, "effects.html", here="Effects", effects=effects.effects(seen))

    @app.get("/review", dependencies=guards)
    def review_page(request: Request, days: int = Query(7, ge=1, le=366)) -> Response:
        seen = read()
        # A review of the day before yesterday must not move with every second.
        end_s = seen.now_s // 60 * 60
        told = review.reviewed(seen, end_s - days * DAY_S, end_s)
        modes = {name: one for name, one in sorted(review.ready(seen).items()) if one.next}
        return pages.show(request, seen, "review.html", here="Review", review=told, days=days, modes=modes)

    @app.get("/health", dependencies=guards)
    def health_page(request: Request) -> Response:
        seen = read()
        return pages.show(request, seen, "health.html", here="Health", health=health.health(seen))

    @app.post("/actions", dependencies=[*guards, Depends(same_site)])
    async def act(request: Request, name: str = Depends(who)) -> Response:
        if write is None:
            return pages.missing(request, "This page only reads.", status=403)
        put, body = write, await request.body()
        return await run_in_threadpool(_acted, pages, request, read, put, body, name)

    @app.post("/start", dependencies=[*guards, Depends(same_site)])
    async def begin(request: Request, name: str = Depends(starter)) -> Response:
        if start is None:
            return pages.missing(request, "This page starts nothing: Airflow does.", status=403)
        run, body = start, await request.body()
        return await run_in_threadpool(_started, pages, request, read, run, body, name)

    @app.post("/alerts", dependencies=[Depends(may_alert)])
    async def alerts(request: Request) -> Response:
        if take is None:
            return Taken(403, "This page only reads.").answer()
        body = await body_of(request)
        return (TOO_LARGE if body is None else await run_in_threadpool(take, body)).answer()

    @app.get("/metrics", dependencies=scrape)
    def metrics() -> Response:
        return PlainTextResponse(exposition(read()), media_type=CONTENT_TYPE)

    return app


def _remembering(read: Callable[[], Reading]) -> Callable[[], Reading]:
    """The same readings with one memory, so that a request reads only what was written since the one before."""
    memory = Memory()
    return lambda: replace(read(), memory=memory)


def _asked(
    seen: Reading, answer: Callable[[approvals.Waiting], str] | None
) -> list[tuple[approvals.Waiting, str]]:
    """Every plan that waits for a yes, with the place where it is given."""
    return [(row, answer(row) if answer is not None else "") for row in approvals.waiting(seen)]


def _read_ahead(read: Callable[[], Reading]) -> None:
    with suppress(SlotuneError):  # whoever asks is told what is wrong
        seen = read()
        seen.memory.past_within(seen.reader, seen.now_s, 0.0)


def _of_all(seen: Reading) -> tuple[Order, ...]:
    return tuple(pause for pause in spoken(seen).pauses if not pause.service)


def _acted(
    pages: _Pages,
    request: Request,
    read: Callable[[], Reading],
    write: Callable[[Record], object],
    body: bytes,
    who: str,
) -> Response:
    try:
        fields = actions.form(body)
        given = actions.asked(read(), fields, who)
    except ConfigError as error:
        return pages.missing(request, f"Nothing was done: {error}.", status=400)
    write(order_record(given))
    back = f"/incidents/{quote(given.about)}" if given.what == "label" else f"/services/{quote(given.service, safe='')}"
    place = back if given.service or given.what == "label" else "/"
    return RedirectResponse(f"{_root(request)}{place}", status_code=303)


def _started(
    pages: _Pages,
    request: Request,
    read: Callable[[], Reading],
    start: Callable[[actions.Attempt], str],
    body: bytes,
    who: str,
) -> Response:
    try:
        place = start(actions.attempt(read(), actions.form(body), who))
    except ConfigError as error:
        return pages.missing(request, f"Nothing was started: {error}.", status=400)
    return RedirectResponse(place, status_code=303)


class _Pages:
    def __init__(self, environment: Environment, acts: bool) -> None:
        self._environment, self._acts = environment, acts

    def show(self, request: Request, seen: Reading, template: str, **values: object) -> Response:
        text = self._environment.get_template(template).render(
            {"refresh": None, "acts": self._acts, **values}, root=_root(request), now_s=seen.now_s
        )
        return HTMLResponse(text)

    def missing(self, request: Request, what: str, status: int = 404) -> Response:
        text = self._environment.get_template("missing.html").render(
            what=what, root=_root(request), now_s=words.now_s(), here="", refresh=None
        )
        return HTMLResponse(text, status_code=status)


def _root(request: Request) -> str:
    """Where the application is mounted, such as "/slotune"; "" at the top."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def _shown(value: object) -> object:
    """Control characters from outside become visible; autoescaping does the rest."""
    return printable(value, 4000) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= words.FILTERS | {
        "sparkline": sparkline,
        "curve": curve,
        "day_bars": day_bars,
        "prediction_dots": prediction_dots,
    }
    return environment
