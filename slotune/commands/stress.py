"""`slotune stress`: where a service breaks, measured at one address that is named, up to a rate that is named."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detection.errors import ConfigError
from slotune.person import person

if TYPE_CHECKING:
    from ssl import SSLContext

    from detection.http_access import Access, Address
    from slotune.stress.conduct import Test, Watching
    from slotune.stress.model import Found, Plan, Step
    from slotune.stress.protocols import Ask, Protocol
    from slotune.stress.run import Progress as Told
    from slotune.stress.service import Watched

_INTERRUPTED = 130
_LEAST_STEP_S = 2.0
_SOCKETS = 65_536


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("stress")(stress)


def stress(
    address: Annotated[str, typer.Argument(help="Where the load goes, such as http://ranker:8000. Nowhere else.")] = "",
    to: Annotated[str, typer.Option("--to", help="Never more than this: 200/s, or 10x of what it gets now.")] = "",
    service: Annotated[str, typer.Option("--service", help="Which service of services.yaml this is.")] = "",
    unwatched: Annotated[
        bool, typer.Option("--unwatched", help="It is none of services.yaml: nothing is checked, nothing learned.")
    ] = False,
    protocol: Annotated[
        str, typer.Option("--protocol", help="oip (Open Inference Protocol v2), json, openai (streamed).")
    ] = "oip",
    model: Annotated[str, typer.Option("--model", help="The model's name, with oip and openai.")] = "",
    path: Annotated[str, typer.Option("--path", help="Instead of the protocol's own, such as /predict.")] = "",
    body: Annotated[
        Path | None,
        typer.Option("--body", help="What is sent: a file, or a .jsonl of several; {{number}}, {{random}}, {{uuid}}."),
    ] = None,
    slo: Annotated[
        list[str] | None, typer.Option("--slo", help="Instead of the service's own: 100ms, or ttft_p95=500ms.")
    ] = None,
    first: Annotated[str, typer.Option("--from", help="The first rate, such as 5/s.")] = "",
    step: Annotated[str, typer.Option("--step", help="How long each rate is held.")] = "20s",
    stop_errors: Annotated[str, typer.Option("--stop-errors", help="More failures than this end the test.")] = "5%",
    stop_p95: Annotated[
        str, typer.Option("--stop-p95", help="A P95 beyond this ends a step: 3x its limit, 2s.")
    ] = "3x",
    timeout: Annotated[str, typer.Option("--timeout", help="A request that takes longer has failed.")] = "30s",
    words: Annotated[int, typer.Option("--words", min=1, max=100_000, help="Of a prompt, with openai.")] = 100,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, max=100_000, help="Of an answer, with openai.")
    ] = 64,
    connection: Annotated[
        str, typer.Option("--connection", help="A connection whose token, headers and TLS are used (not its address).")
    ] = "",
    with_loop: Annotated[
        bool, typer.Option("--with-loop", help="Let slotune go on changing the service meanwhile.")
    ] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Hold --to, and try INT8, then dynamic batching, each proven or undone.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of arrivals and bodies.")] = 0,
    config: Annotated[Path | None, typer.Option("--config", help="services.yaml (default: SLOTUNE_CONFIG).")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Writes a page with the curve and every step.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON on stdout.")] = False,
) -> None:
    """Load one address step by step until its objective breaks: the highest rate that keeps it, with its interval.

    Requests are sent at random moments whatever becomes of those before, and a latency counts from the moment at which
    its request was meant to be sent. Ctrl-C ends it with what was measured.
    """
    from slotune.commands.backtest import seconds
    from slotune.stress import wishes
    from slotune.stress.model import Plan
    from slotune.stress.protocols import Ask, get, read_bodies

    if not address:
        raise ConfigError(
            "name the address that is to be loaded, such as http://ranker:8000: nothing is sent without one"
        )
    if not to:
        wishes.bound("", None, None)
    spoken = get(protocol)
    where = _address(address)
    watched = _watched(service, config, unwatched=unwatched)
    limits = wishes.limits(tuple(slo or ()), watched.service.slo if watched else None, spoken)
    present = watched.present_per_s(time.time()) if watched else None
    start, most, growth = wishes.rates(to, first, present)
    plan = Plan(
        start_per_s=start,
        bound_per_s=most,
        limits=limits,
        other_per_s=present,
        growth=growth,
        step_s=_step_s(seconds(step, "--step")),
        error_rate=watched.service.slo.error_rate if watched else Plan.error_rate,
        stop_errors=wishes.share(stop_errors, "--stop-errors"),
        stop_p95=wishes.times_or_ms(stop_p95, next(iter(limits.values())), "--stop-p95"),
    )
    access = _access(connection)
    ask = Ask(
        address=where,
        path=path,
        model=model,
        bodies=read_bodies(body) if body is not None else (),
        headers=access.headers,
        words=words,
        max_tokens=max_tokens,
        seed=seed,
    )
    tls = access.tls.context() if where.scheme == "https" else None
    if tune:
        if watched is None:
            raise ConfigError("--tune needs --service: it changes what services.yaml allows it to change")
        _tuned(ask, spoken, plan, watched, seconds(timeout, "--timeout"), tls, html, as_json=as_json)
        return
    found = _stressed(ask, spoken, plan, watched, seconds(timeout, "--timeout"), tls, not with_loop)
    if html is not None:
        from slotune.stress.page import page

        _write(html, page(found))
    if as_json:
        from slotune.stress.document import document

        typer.echo(json.dumps(document(found), indent=2))
    else:
        from slotune.stress.words import render

        typer.echo(render(found))
    if found.ended == "it was interrupted":
        raise typer.Exit(_INTERRUPTED)


def _stressed(
    ask: Ask,
    protocol: Protocol,
    plan: Plan,
    watched: Watched | None,
    timeout_s: float,
    tls: SSLContext | None,
    pause: bool,
) -> Found:
    import asyncio

    from slotune.stress.conduct import Test, conduct

    test = Test(ask, protocol, plan, watched, tls, timeout_s, person(), pause)
    _more_sockets()
    _say(_intention(plan, test))
    with _display() as watching:
        try:
            import uvloop
        except ImportError:
            return asyncio.run(conduct(test, watching))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(conduct(test, watching))


def _tuned(
    ask: Ask,
    protocol: Protocol,
    plan: Plan,
    watched: Watched,
    timeout_s: float,
    tls: SSLContext | None,
    html: Path | None,
    *,
    as_json: bool,
) -> None:
    import asyncio

    from slotune.stress.conduct import Test
    from slotune.stress.steady import tune
    from slotune.stress.tune import check, document, render

    check(watched.service)
    test = Test(ask, protocol, plan, watched, tls, timeout_s, person(), pause=False)
    _more_sockets()
    _say(f"{plan.bound_per_s:.3g}/s at {ask.address} while it is tuned. Ctrl-C ends it.")
    found = asyncio.run(tune(test, watched, _say))
    if html is not None:
        from slotune.stress.tuned_page import tuned_page

        _write(html, tuned_page(found))
    typer.echo(json.dumps(document(found), indent=2) if as_json else render(found))
    if found.ended:
        raise typer.Exit(_INTERRUPTED)


def _address(text: str) -> Address:
    from detection.http_access import address

    try:
        return address(text)
    except ConfigError as error:
        raise ConfigError(str(error), where="the address") from error


def _access(name: str) -> Access:
    from detection.http_access import Access
    from slotune.compose import environment_connections

    if not name:
        return Access()
    held = environment_connections().get(name)
    return Access.of(held.extra, held.login, held.password)


def _watched(name: str, config: Path | None, *, unwatched: bool) -> Watched | None:
    """The service that is stressed; None for one that is none of services.yaml, which has to be said."""
    from slotune import compose
    from slotune.places import config_path
    from slotune.stress.service import Watched

    if name and unwatched:
        raise ConfigError("--service and --unwatched exclude each other")
    if unwatched:
        return None
    if not name:
        file = config or config_path()
        known = [one.name for one in compose.load_settings(file).services] if Path(file).exists() else []
        if known:
            raise ConfigError(
                f"say with --service which one this is ({', '.join(known)}), or --unwatched if it is none"
            )
        raise ConfigError("say with --service which service of services.yaml this is, or --unwatched if it is none")
    parts = compose.build(compose.load_settings(config), compose.environment_connections())
    return Watched.of(parts, name, time.time())


def _step_s(length_s: float) -> float:
    if length_s < _LEAST_STEP_S:
        raise ConfigError(f"a step needs at least {_LEAST_STEP_S:g}s: shorter ones tell no P95", where="--step")
    return length_s


def _more_sockets() -> None:
    """One open request is one socket: as many as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, _SOCKETS) if hard != resource.RLIM_INFINITY else _SOCKETS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _intention(plan: Plan, test: Test) -> str:
    from slotune.stress.run import LAST_S
    from slotune.stress.wishes import longest_s
    from slotune.stress.words import per_s

    most_min = longest_s(plan, LAST_S) / 60.0
    return (
        f"From {per_s(plan.start_per_s)} up to {per_s(plan.bound_per_s)} at {test.ask.address}, {plan.step_s:g} s at "
        f"each rate, {most_min:.0f} minutes at the most. Ctrl-C ends it with what was measured."
    )


@contextmanager
def _display() -> Iterator[Watching]:
    """A bar for a person at a terminal; the steps that are over in either case."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from slotune.stress.conduct import Watching
    from slotune.stress.words import line

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[now]}"))
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task("begins", total=1.0, now="")

        def tell(now: Told) -> None:
            p95 = "no answer yet" if math.isnan(now.p95_ms) else f"P95 {now.p95_ms:.3g} ms"
            said = f"{p95}, {now.errors:.1%} failed"
            shown.update(task, description=f"{now.what} {now.rate_per_s:.3g}/s", completed=now.done, now=said)

        def after(step: Step) -> None:
            console.print(line(step), markup=False)

        yield Watching(tell, after)


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(file)) from error
    typer.echo(f"Written: {file}", err=True)
