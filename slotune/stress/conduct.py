"""A stress test from the first probe to its result: one request that has to be answered well, then the run, and what
the ledger is told before and after."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from detection.errors import ConfigError
from detection.http_access import unquoted
from detection.outside_text import printable
from slotune.load.wire import ConnectionLost, NotHttp, Pool
from slotune.stress.document import document
from slotune.stress.generator import Generator
from slotune.stress.model import Found, Plan, Step
from slotune.stress.protocols import Answer, Ask, Protocol, Talk
from slotune.stress.run import LAST_S, Measured, Progress, Run
from slotune.stress.service import Watched
from slotune.stress.statistics import knee, turn
from slotune.stress.wishes import longest_s

_MOST_UNDER_WAY = 8000
_LONGEST_BODY = 1 << 20


@dataclass(frozen=True)
class Watching:
    """Who looks on. tell: four times a second. after_step: each step that is over."""

    tell: Callable[[Progress], None]
    after_step: Callable[[Step], None]


@dataclass(frozen=True)
class Test:
    """What is to be done. watched: None: the address is no service of services.yaml. tls: None: plain HTTP."""

    ask: Ask
    protocol: Protocol
    plan: Plan
    watched: Watched | None
    tls: ssl.SSLContext | None
    timeout_s: float
    who: str
    pause: bool


async def conduct(test: Test, watching: Watching) -> Found:
    """ConfigError, with a sentence, where the address does not answer one request as it should."""
    stop = stopping()
    generator = await prepared(test)
    run = Run(generator, test.plan, stop, watching.tell, watching.after_step, test.ask.seed)
    began_s = time.time()
    paused = False
    if test.watched is not None:
        until_s = began_s + longest_s(test.plan, LAST_S)
        told = {"address": str(test.ask.address), "bound_per_s": test.plan.bound_per_s}
        paused = test.watched.begin(began_s, until_s, test.who, told, pause=test.pause)
    ended: dict[str, object] = {"ended": "it failed"}
    try:
        await run.run()
        found = _found(test, run.measured, began_s, generator.log.answers)
        ended = document(found)
    finally:
        if test.watched is not None:
            test.watched.end(began_s, time.time(), test.who, ended, paused=paused)
    return found


def stopping() -> asyncio.Event:
    """Set by Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def prepared(test: Test) -> Generator:
    """The generator, after one request was answered as it should be; ConfigError where it was not."""
    pool = Pool(test.ask.address.host, test.ask.address.port, test.tls)
    return Generator(
        pool,
        await _prepared(test, pool),
        test.protocol.reader if test.protocol.streams else None,
        timeout_s=test.timeout_s,
        seed=test.ask.seed,
        most_under_way=_MOST_UNDER_WAY,
    )


def _found(test: Test, measured: Measured, began_s: float, answers: dict[str, int]) -> Found:
    steps, plan, main = tuple(measured.steps), test.plan, next(iter(test.plan.limits))
    found = Found(
        service=test.watched.service.name if test.watched is not None else "",
        address=str(test.ask.address),
        protocol=test.protocol.name,
        plan=plan,
        began_s=began_s,
        ended_s=time.time(),
        steps=steps,
        recoveries=tuple(measured.recoveries),
        knee=knee(steps, measured.drawn, plan),
        turn=turn(steps, measured.drawn, main),
        ended=measured.ended,
        main=main,
        notes=_notes(test, steps),
        failures=dict(answers),
    )
    if test.watched is None:
        return replace(found, blind="the address is no service of services.yaml, so Prometheus was not asked")
    if not steps:
        return replace(found, blind="no step was measured")
    seen = test.watched.saturated(steps)
    learned = test.watched.learn(began_s, found.ended_s)
    notes = (*found.notes, *seen.notes)
    return replace(found, saturated=seen.found, untold=seen.untold, blind=seen.blind, notes=notes, learned=learned)


def _notes(test: Test, steps: Sequence[Step]) -> tuple[str, ...]:
    notes = []
    if test.plan.other_per_s is None:
        notes.append("What the service gets beside this test is not known: rates are what was sent here.")
    elif test.plan.other_per_s > 0:
        notes.append(
            f"Rates are at the service: {test.plan.other_per_s:.3g}/s that it gets anyway, and what was sent here."
        )
    own = [step for step in steps if step.verdict == "generator"]
    if own:
        rates = dict.fromkeys(f"{step.rate_per_s:.3g}/s" for step in own)
        notes.append(
            f"At {', '.join(rates)} the generator itself was the limit "
            f"({own[0].why}): this says nothing of the service. Run it from a machine with a core to spare."
        )
    return tuple(notes)


async def _prepared(test: Test, pool: Pool) -> Sequence[bytes]:
    """The requests, after one of them was answered as it should be."""
    talk = _talk(test, pool)
    requests = await test.protocol.requests(test.ask, talk)
    answer = await talk(requests[0])
    place = f"{requests[0].split(b' ', 2)[1].decode('latin-1')}"
    where = f"{test.ask.address}"
    said = _said(answer, test.ask.headers)
    if answer.status in (404, 405):
        raise ConfigError(f"answered {answer.status} to POST {place}{said}: are --path and --model right?", where=where)
    if answer.status in (401, 403):
        raise ConfigError(f"answered {answer.status}: name a --connection that holds a token", where=where)
    if not 200 <= answer.status < 300:
        raise ConfigError(
            f"answered {answer.status} to one single request{said}: more of them would tell nothing", where=where
        )
    wrong = test.protocol.check(answer)
    if wrong is not None:
        raise ConfigError(f"{wrong} (--protocol {test.protocol.name}, POST {place})", where=where)
    return requests


def _said(answer: Answer, headers: Sequence[tuple[str, str]]) -> str:
    body = unquoted(answer.body[:2000], dict(headers), answer.status).decode(errors="replace").strip()
    return f" ({printable(body)})" if body else ""


def _talk(test: Test, pool: Pool) -> Talk:
    async def talk(request: bytes) -> Answer:
        body = bytearray()

        def feed(piece: bytes) -> None:
            if len(body) < _LONGEST_BODY:
                body.extend(piece)

        try:
            status, head = await pool.exchange(request, test.timeout_s, feed)
        except TimeoutError:
            raise ConfigError(f"gave no answer within {test.timeout_s:g} s (--timeout)", where=_of(test)) from None
        except NotHttp:
            raise ConfigError("does not answer in HTTP: is the port right?", where=_of(test)) from None
        except ConnectionLost:
            raise ConfigError("closed the connection without an answer: http or https?", where=_of(test)) from None
        except ssl.SSLError as error:
            raise ConfigError(f"cannot be spoken to over TLS ({error.reason or error})", where=_of(test)) from error
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigError(
                f"cannot be reached ({why}): is it up, and the address right?", where=_of(test)
            ) from error
        return Answer(status, head, bytes(body))

    return talk


def _of(test: Test) -> str:
    return str(test.ask.address)
