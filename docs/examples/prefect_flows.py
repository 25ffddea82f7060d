"""slotune's loop as Prefect flows: the same steps as `slotune run` and Airflow's DAGs, on the same ledger and settings.

    python prefect_flows.py            # serves three flows on their schedules, until Ctrl-C
    python prefect_flows.py --once     # one sweep and what follows from it

A flow run of `watch-services` is one sweep; every attempt that begins in it is a task run. Nothing happens twice beside
an Airflow, a `slotune run` or another worker on the same ledger: a sweep is left out while somebody else's is fresh, an
attempt is begun by whoever writes its first line, and a change belongs to whoever claims it. A flow run that dies or is
cancelled leaves its change claimed, and the next sweep proves it or takes it back. Plans in mode approve wait for
`slotune approve`, or for the page.

Never give these tasks retries: an attempt that broke off is settled by the next sweep, from the ledger.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from prefect import flow, get_run_logger, serve, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from slotune.compose import build, environment_connections, load_settings
from slotune.runner import Clock, Runner
from tuning.loop.alive import BEAT_S
from tuning.loop.learn import learn_baselines
from tuning.loop.learn_latency import learn_latency
from tuning.loop.parts import Parts
from tuning.loop.review import review_week

AT_ONCE = 64
"""Flow runs at the same time: an attempt waits for minutes, and the sweeps after it must not wait for its end."""


def parts() -> Parts:
    """The loop's parts, as services.yaml and the connections are now."""
    return build(load_settings(), environment_connections())


@task(name="tune-service", cache_policy=NO_CACHE, persist_result=False)
def attempt(work: Callable[[], None]) -> None:
    """One attempt at one incident: choose, guard, change, settle, verify, keep or roll back, report."""
    work()


class TaskRuns(Executor):
    """Begins every attempt of the runner as a task run of the flow that it is in."""

    def __init__(self) -> None:
        self._begun: list[Any] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()

        def work() -> None:
            try:
                done.set_result(fn(*args, **kwargs))
            except BaseException as error:
                done.set_exception(error)
                raise

        self._begun.append(attempt.submit(work))
        return done

    def end(self) -> None:
        """Waits for all of them; raises what the first of them that failed raised."""
        for one in self._begun:
            one.result()


@flow(name="watch-services", log_prints=True)
def watch_services(only: list[str] | None = None) -> None:
    """One sweep over all services (or `only` these), and the attempts that follow from it, to their end."""
    say, stop = get_run_logger().info, threading.Event()
    runs = TaskRuns()
    runner = Runner(parts, f"prefect-{flow_run.id}", Clock(time.time, stop.wait), runs, say, only=tuple(only or ()))
    beating = threading.Thread(target=_beats, args=(runner, stop), daemon=True)
    beating.start()
    try:
        runner.turn(beside=False)
        runs.end()
    finally:
        stop.set()
        beating.join()
    if runner.failures:
        raise RuntimeError("this sweep failed; the log says why")


def _beats(runner: Runner, stop: threading.Event) -> None:
    """While an attempt is under way, others have to see that its loop is alive."""
    while not stop.wait(BEAT_S):
        if runner.under_way():
            runner.beat()


@flow(name="learn-baselines")
def learn() -> None:
    """What is normal, and the latency models."""
    now_s = time.time()
    learned, models = learn_baselines(parts(), now_s), learn_latency(parts(), now_s)
    get_run_logger().info("baselines of %d services, %d latency models", learned.services, models)


@flow(name="review-week")
def review() -> None:
    """The week's review, mailed."""
    get_run_logger().info("review: %s", review_week(parts(), time.time()))


def deployments() -> list[Any]:
    """The flows on the schedules of services.yaml."""
    schedule = load_settings().schedule
    return [
        watch_services.to_deployment("watch-services", interval=schedule.watch_every_s),
        learn.to_deployment("learn-baselines", interval=schedule.learn_every_s),
        review.to_deployment("review-week", cron=schedule.review),
    ]


def main() -> None:
    asked = argparse.ArgumentParser(description="slotune's loop as Prefect flows.")
    asked.add_argument("--once", action="store_true", help="one sweep and what follows from it")
    if asked.parse_args().once:
        watch_services()
        sys.exit(0)
    serve(*deployments(), limit=AT_ONCE)


if __name__ == "__main__":
    main()
