"""kill -9 of Airflow's own processes at every step of tune_service, with many services' stories under way at once.

One round is one Airflow: services get into trouble one after the other, and each story is struck once at the step that
was drawn for it: its task's process, that task's worker, the scheduler, the triggerer, the API server or all of
Airflow. A kill of a part that all share strikes every story under way; which step each was in is written down. In the
end, when all is quiet, what really happened at the control endpoints is compared with the ledger.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from demo.mailbox import Mailbox
from tests.faults.airflow_leaks import SECRET, leaks
from tests.faults.airflow_parts import DEAD_TASK_S, PARTS, KillableAirflow
from tests.faults.airflow_truth import Finding, compare, rollback_limit_s
from tests.faults.fleet import ASKED, CURE, ERRORS, HARM, Fleet, FleetService, Story
from tuning.ledger import SqlLedger
from tuning.services_yaml import loads

ROOT = Path(__file__).parents[2]
WATCH_EVERY_S = 12
NEXT_STORY_S = 5.0
"""Between the beginnings of two stories: about a dozen are under way at once."""

CALM_S = 12.0
"""After a part that all share was killed and is whole again, the stories get this long before the next such kill."""

QUIET_S = 240.0
"""How long the end of a round waits for every story to end."""

TARGETS = ("task", "worker", "scheduler", "triggerer", "api-server", "airflow")
ALONE = ("task", "worker")

SERVICE = """
  - name: {name}
    serving: slotune_demo
    selectors: {{service: {name}}}
    slo: {{p95: 150ms, for: 6s, error_rate: 5%}}
    mode: {mode}
    levers: {{batch_size: {{min: 1, max: 32, connection: {connection}, effect_delay: 1s}}}}
"""
CONFIG = """
prometheus: {{rate_window: 8s, step: 2s, timeout: 5s}}
schedule: {{watch_every: {watch}s, learn_every: 24h, review: "0 0 1 1 *"}}
verification: {{look: 20s, longer_look: 20s, settle_min: 8s, summary_window: 8s}}
safety: {{cool_down: 0s, hold_again: 1h, in_flight: 20s, control_timeout: 10s, max_attempts: 1, approval_timeout: 90s,
  services_at_once: 100, changes_per_hour_total: 1000, dead_task: {dead_task}s}}
detection: {{lookback: 4m, detectors: [rules], close_after: 10m}}
mail: {{to: [oncall@example.com], connection: mail}}
services:{services}
"""

_CHOOSE = ("choose_action", ("begin", "read", "before put choose_action", "after put choose_action", "end"))
_CHANGE = (
    "pull_lever",
    (
        *("begin", "before open_change", "after open_change", "before apply", "before landing", "after landing"),
        *("after apply", "before update_change made", "after update_change made", "end"),
    ),
)
_WAIT = ("look_until_s", ("begin", "end"))
_VERIFY = ("verify_p95", ("begin", "before put verify_p95", "after put verify_p95", "end"))
_KEEP = ("keep", ("begin", "before update_change closed", "after update_change closed", "end"))
_MAIL = (
    "email_report",
    ("begin", "before put email_report", "after put email_report", "before mail", "after mail", "end"),
)
_BACK = (
    "roll_back",
    ("begin", "before put roll_back", "after put roll_back", "before apply", "before landing", "after landing", "end"),
)
_IS_BACK = (
    "rolled_back",
    ("begin", "before put verify_p95", "before update_change closed", "after update_change closed", "end"),
)
_ANSWER = ("approved", ("begin", "read", "end"))
_HOLD = ("hold", ("begin", "before put hold", "after put hold", "end"))
STEPS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "cure": (_CHOOSE, _CHANGE, _WAIT, _VERIFY, _KEEP, _MAIL),
    "harm": (_BACK, _IS_BACK, _CHANGE, _VERIFY),
    "asked": (_ANSWER,),
    "errors": (_HOLD,),
}
"""The bodies of each story and their steps, in which it may be struck."""

SHARED_AT: dict[str, tuple[tuple[str, str, float], ...]] = {
    "cure": (
        ("choose_action", "after put choose_action", 0.0),
        ("pull_lever", "after open_change", 0.0),
        ("pull_lever", "after landing", 0.0),
        ("pull_lever", "end", 0.4),
        ("look_until_s", "end", 0.3),
        ("look_until_s", "end", 5.0),
        ("verify_p95", "after put verify_p95", 0.0),
        ("keep", "after update_change closed", 0.0),
        ("email_report", "after put email_report", 0.0),
    ),
    "harm": (
        ("look_until_s", "end", 5.0),
        ("verify_p95", "end", 0.3),
        ("roll_back", "after put roll_back", 0.0),
        ("roll_back", "after landing", 0.0),
        ("roll_back", "end", 5.0),
        ("rolled_back", "before put verify_p95", 0.0),
    ),
    "asked": (("choose_action", "end", 3.0), ("approved", "end", 0.0)),
}
"""(body, step, seconds after it) at which the parts that all stories share are killed, each by each."""


@dataclass(frozen=True)
class Point:
    """One fault: in a story of this name, at this step of this body (or `after_s` later), this is killed."""

    story: str
    body: str
    step: str
    target: str
    after_s: float = 0.0

    def text(self) -> str:
        later = f" + {self.after_s:g} s" if self.after_s else ""
        return f"{self.story}: {self.target} at {self.body}/{self.step}{later}"


def points() -> list[Point]:
    """All of them: the two that strike one story at every step, the shared ones at each of SHARED_AT."""
    found = [
        Point(story, body, step, target)
        for story, bodies in STEPS.items()
        for body, steps in bodies
        for step in steps
        for target in ALONE
    ]
    found += [
        Point(story, body, step, target, after_s)
        for story, places in SHARED_AT.items()
        for body, step, after_s in places
        for target in TARGETS
        if target not in ALONE
    ]
    return found


@dataclass
class Strike:
    """One kill that happened. hit: (service, body, step) of every story that was under way."""

    point: Point
    at_s: float
    hit: list[tuple[str, str, str]] = field(default_factory=list)


class Driver:
    """Knows where every story is, and kills when one gets to its point."""

    def __init__(self, services: dict[str, FleetService], wanted: Sequence[Point]) -> None:
        self.services, self.airflow = services, None  # type: tuple[dict[str, FleetService], KillableAirflow | None]
        self.left = list(wanted)
        self.drawn: dict[str, Point] = {}
        self.where: dict[str, tuple[str, str]] = {}
        self.pids: dict[str, int] = {}
        self.strikes: list[Strike] = []
        self.may_shake_s = float("inf")
        self._lock = threading.RLock()

    def draw(self, service: FleetService) -> None:
        """The next point of this story's kind, if there is one left; shared targets when they may be killed."""
        with self._lock:
            mine = [point for point in self.left if point.story == service.story.name]
            if mine:
                self.drawn[service.name] = mine[0]
                self.left.remove(mine[0])

    def on_step(self, said: dict[str, Any]) -> None:
        name = service_of(said)
        if not name:
            return
        with self._lock:
            self.pids[name] = said["pid"]
            self.where[name] = (said["body"], said["step"])
            point = self.drawn.get(name)
        if point is not None and (point.body, point.step) == self.where[name]:
            self._strike(name, point)

    def on_config(self, name: str, step: str) -> None:
        body = self.where.get(name, ("", ""))[0]
        self.on_step(
            {"run": f"tune__{name}__", "dag": "tune_service", "pid": self.pids[name], "body": body, "step": step}
        )

    def _strike(self, name: str, point: Point) -> None:
        with self._lock:
            if self.drawn.get(name) is not point:
                return
            del self.drawn[name]
            if point.target not in ALONE:
                if time.time() < self.may_shake_s:
                    # Not while a part is still coming back: another story will get there, this one gets another.
                    self.draw(self.services[name])
                    self.left.append(point)
                    return
                self.may_shake_s = float("inf")
        if point.after_s:
            timer = threading.Timer(point.after_s, self._kill, [name, point])
            timer.daemon = True
            timer.start()
        else:
            self._kill(name, point)

    def _kill(self, name: str, point: Point) -> None:
        with self._lock:
            strike = Strike(point, time.time(), [(name, *self.where[name])])
            if point.target not in ALONE:
                strike.hit += [(n, *at) for n, at in self.where.items() if n != name and at != ("email_report", "end")]
            self.strikes.append(strike)
        if point.target in ALONE:
            kill_task(self.pids[name], worker=point.target == "worker")
        elif self.airflow is not None:
            self.airflow.kill(PARTS if point.target == "airflow" else [point.target])


def service_of(said: dict[str, Any]) -> str:
    """From the run's id, which open_incidents makes from the service; empty for a sweep's own tasks."""
    parts = str(said["run"]).split("__")
    return parts[1] if said["dag"] == "tune_service" and len(parts) > 2 else ""


def kill_task(pid: int, *, worker: bool) -> None:
    """SIGKILL to a task's process, and to the worker that watches over it."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid).parent()
        if worker and parent is not None:
            parent.kill()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def services_of(order: Sequence[Story]) -> dict[str, FleetService]:
    named = [FleetService(f"{story.name}-{number:02d}", story) for number, story in enumerate(order)]
    return {service.name: service for service in named}


def settings_text(services: dict[str, FleetService]) -> str:
    rows = [
        SERVICE.format(name=s.name, mode=s.story.mode, connection=s.name.replace("-", "_")) for s in services.values()
    ]
    return CONFIG.format(watch=WATCH_EVERY_S, dead_task=DEAD_TASK_S, services="".join(rows))


@dataclass
class Round:
    """What one round did and found."""

    seed: int
    strikes: list[Strike]
    findings: list[Finding]
    stories: int
    took_s: float
    unfinished: list[str]
    rollback_limit_s: float
    leaked: list[str]


def play_round(
    folder: Path, wanted: Sequence[Point], *, seed: int, minutes: float, say: Callable[[str], None]
) -> Round:
    """One Airflow, `minutes` of stories, then quiet, then the comparison."""
    started_s = time.time()
    count = max(4, int(minutes * 60 / NEXT_STORY_S))
    services = services_of(_order(wanted, count, seed))
    driver = Driver(services, wanted)
    fleet = Fleet(services, driver.on_step, driver.on_config)
    mailbox = Mailbox(folder / "mails")
    mailbox.start()
    (folder / "services.yaml").write_text(settings_text(services))
    secret = fleet.url.replace("://", f"://user:{SECRET}@")
    connections = {f"SLOTUNE_CONN_{n.upper().replace('-', '_')}": f"{secret}/{n}?token={SECRET}" for n in services}
    env = connections | {
        "SLOTUNE_CONN_SLOTUNE_PROMETHEUS": f"{secret}?token={SECRET}",
        "SLOTUNE_CONN_MAIL": f"smtp://127.0.0.1:{mailbox.port}?key={SECRET}",
        "SLOTUNE_CONFIG": str(folder / "services.yaml"),
        "SLOTUNE_FAULTS_URL": fleet.url,
    }
    airflow = KillableAirflow(folder / "airflow", ROOT, folder / "logs" / "airflow.log", env)
    driver.airflow = airflow
    try:
        airflow.start()
        airflow.wait_ready(240.0)
        say(f"Airflow is ready after {time.time() - started_s:.0f} s; {count} stories begin")
        ledger = SqlLedger.open(airflow.ledger_url)
        unfinished = _tell_stories(driver, airflow, services, ledger, say)
        settings = loads((folder / "services.yaml").read_text())
        limit_s = rollback_limit_s(settings, WATCH_EVERY_S)
        findings = [compare(service, ledger, limit_s, airflow.down_s) for service in services.values()]
        seen = [folder / "airflow" / "logs", folder / "logs", folder / "mails"]
        leaked = leaks(seen, [airflow.database_url, airflow.ledger_url])
    finally:
        airflow.stop()
        mailbox.stop()
        fleet.close()
    return Round(seed, driver.strikes, findings, count, time.time() - started_s, unfinished, limit_s, leaked)


def _order(wanted: Sequence[Point], count: int, seed: int) -> list[Story]:
    """Which story each service gets: as the points ask for, at most `count`; cures where there are not enough."""
    by_name = {story.name: story for story in (CURE, HARM, ASKED, ERRORS)}
    names = [point.story for point in wanted][:count]
    names += ["cure"] * (count - len(names))
    random.Random(seed).shuffle(names)
    return [by_name[name] for name in names]


def _tell_stories(
    driver: Driver,
    airflow: KillableAirflow,
    services: dict[str, FleetService],
    ledger: SqlLedger,
    say: Callable[[str], None],
) -> list[str]:
    """Let every service get into trouble in turn, keep Airflow's parts up, answer requests; then wait for quiet."""
    waiting = list(services.values())
    database = sa.create_engine(airflow.database_url, poolclass=sa.NullPool)
    next_s, whole_s, deadline_s, answered = time.time() + 10.0, time.time(), float("inf"), set[str]()
    while True:
        now_s = time.time()
        airflow.restart_killed()
        airflow.check()
        if driver.may_shake_s == float("inf") and airflow.whole:
            airflow.mark_whole()
            whole_s = now_s
            driver.may_shake_s = now_s + CALM_S
        if waiting and now_s >= next_s and (now_s - whole_s < 60 or airflow.whole):
            service = waiting.pop(0)
            driver.draw(service)
            service.surge_s = now_s
            next_s = now_s + NEXT_STORY_S
            if not waiting:
                deadline_s = now_s + QUIET_S
        _answer_requests(airflow, database, answered)
        if not waiting:
            left = _unfinished(database, ledger, services)
            if not left and airflow.whole:
                return []
            if now_s > deadline_s:
                return left
        time.sleep(1.0)


def _unfinished(database: sa.Engine, ledger: SqlLedger, services: dict[str, FleetService]) -> list[str]:
    """Stories without an ended run of tune_service, and changes that are still open."""
    with database.connect() as connection:
        rows = connection.execute(sa.text("SELECT run_id, state FROM dag_run WHERE dag_id = 'tune_service'")).all()
    ended = {row.run_id.split("__")[1] for row in rows if row.state in ("success", "failed")}
    running = [f"{row.run_id} is {row.state}" for row in rows if row.state not in ("success", "failed")]
    never = [f"{name} has no run" for name in services if name not in ended]
    return [*running, *never, *(f"{c.service}: {c.plan_id} is {c.state}" for c in ledger.open_changes())]


def _answer_requests(airflow: KillableAirflow, database: sa.Engine, answered: set[str]) -> None:
    """A person who approves every request some seconds after it was made."""
    asked = sa.text(
        "SELECT run_id FROM task_instance WHERE dag_id = 'tune_service' AND task_id = 'approve' AND state NOT IN "
        "('success', 'failed', 'skipped', 'removed', 'upstream_failed') AND start_date < now() - interval '6 seconds'"
    )
    with database.connect() as connection:
        runs = [row.run_id for row in connection.execute(asked)]
    for run in runs:
        if run in answered:
            continue
        path = f"dags/tune_service/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
        with suppress(OSError, ValueError):
            airflow.patch(path, {"chosen_options": ["Approve"], "params_input": {}})
            answered.add(run)
