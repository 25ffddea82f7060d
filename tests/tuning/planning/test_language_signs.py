"""Servers of language models: which readings name which cause, with which words, and where each threshold lies."""

from __future__ import annotations

import math

import pytest

from detection.model import Objective
from tests.fakes.planning import AT_S, make_incident, make_observation, make_window
from tuning.model import Interval, Setting
from tuning.planning import diagnosis as dg
from tuning.planning.forecast import Forecast
from tuning.planning.reading import read_now
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Baseline, Situation

SETTINGS = PlanningSettings()
TTFT, ITL = Objective(signal="ttft_p95_ms", limit_ms=500), Objective(signal="itl_p95_ms", limit_ms=50)
CALM = {
    "ttft_p95_ms": 110.0, "ttft_ms": 80.0, "itl_ms": 20.0, "itl_p50_ms": 20.0, "itl_p95_ms": 30.0, "e2e_p95_ms": 2600.0,
    "queue_ms": 2.0, "queue_depth": 0.0, "running": 4.0, "kv_usage": 0.2, "preemptions_per_s": 0.0, "prefill_ms": 70.0,
    "decode_ms": 1300.0, "prompt_tokens": 116.0, "output_tokens": 72.0, "arrivals_per_s": 2.0, "qps": 2.0,
    "steps_per_s": 50.0, "step_tokens": 8.0, "prefix_hit_rate": 0.6, "error_rate": 0.0, "replicas": 1.0,
    "mean_ms": 1400.0, "p95_ms": 2600.0, "unanswered_rate": 0.0,
}  # fmt: skip
BROKEN = CALM | {"ttft_p95_ms": 9400.0, "ttft_ms": 6000.0, "queue_ms": 5900.0, "queue_depth": 15.0, "running": 8.0}


def diagnose(now, *, limit=64, objective=TTFT, load=(2.0, 2.0), slow=None, calm=None):
    """now: the signals after the onset, 60 s ago; calm: those before it."""
    before = CALM | (calm or {})
    series = {name: [*([before.get(name, math.nan)] * 300), *([value] * 13)] for name, value in (BROKEN | now).items()}
    observation = make_observation({}, objective=objective, since_s=AT_S - 60,
                                   settings={"batch_size": Setting(lever="batch_size", values={"max_num_seqs": limit})})  # fmt: skip
    window = make_window(series, points=313)
    observation = make_observation({}, objective=objective, since_s=AT_S - 60, settings=observation.settings)
    object.__setattr__(observation, "window", window)
    qps, usual = load
    situation = Situation(
        now=read_now(observation, SETTINGS), base=Baseline(qps=usual, replicas=1.0, points=60), cv2=1.0,
        arrivals=Forecast(Interval(value=qps, low=qps, high=qps), "constant"), slow=slow, slow_sd=0.02,
    )  # fmt: skip
    return dg.diagnose(make_incident(), observation, situation, SETTINGS)


KV = {"kv_usage": 0.97, "preemptions_per_s": 0.2}
ROWS = {
    "the cache is full and requests are thrown out": (
        {"now": KV},
        "kv_cache_full",
        "the KV cache is 97% full, 12 preemptions a minute, 15 requests wait and 8 of 64 run",
    ),
    "full, and nothing thrown out yet": ({"now": {"kv_usage": 0.9}}, "kv_cache_full", None),
    "nearly full is not full": ({"now": {"kv_usage": 0.89}, "limit": 8}, "concurrency_limited", None),
    "full while nothing waits is well used": (
        {"now": {"kv_usage": 0.95, "queue_depth": 0.0, "itl_p50_ms": 45.0, "itl_p95_ms": 60.0}, "objective": ITL},
        "decode_bound",
        None,
    ),
    "preemptions say it whatever the usage": ({"now": {"preemptions_per_s": 0.02, "kv_usage": 0.5}}, "kv_cache_full", None),
    "one preemption in a while is none": ({"now": {"preemptions_per_s": 0.019}, "limit": 8}, "concurrency_limited", None),
    "at the limit with room in the cache": (
        {"now": {}, "limit": 8},
        "concurrency_limited",
        "15 requests wait and 8 of 8 run while 80% of the KV cache are free",
    ),
    "a mean over the window is a little below the limit": ({"now": {"running": 7.2}, "limit": 8}, "concurrency_limited", None),
    "more ran before than the limit lets run": (
        {"now": {}, "limit": 8, "calm": {"running": 20.0}, "load": (3.0, 2.0)},
        "concurrency_limited",
        "15 requests wait and 8 of 8 run while 80% of the KV cache are free, where 20 ran before",
    ),
    "a few more ran before, and the load grew by more": (
        {"now": {}, "limit": 8, "calm": {"running": 10.0}, "load": (4.0, 2.0)},
        "load_surge",
        "15 requests wait and 8 of 8 run while 80% of the KV cache are free, where 10 ran before",
    ),
    "well below the limit": ({"now": {"running": 7.1}, "limit": 8}, "load_surge", None),
    "many run, none waits": (
        {"now": {"queue_depth": 0.0, "running": 30.0, "itl_ms": 55.0, "itl_p50_ms": 50.0, "itl_p95_ms": 65.0},
         "objective": ITL},
        "decode_bound",
        "30 requests run at once, and a token takes 55 ms, while none waits",
    ),
    "every twentieth token waits for somebody's prompt": (
        {"now": {"queue_depth": 0.0, "itl_p50_ms": 20.0, "itl_p95_ms": 60.0}, "objective": ITL},
        "prefill_bound",
        "tokens come every 20 ms, and every twentieth after 60 ms",
    ),
    "the prompt takes the time to the first token": (
        {"now": {"queue_depth": 0.0, "queue_ms": 1.0, "prefill_ms": 700.0, "ttft_ms": 800.0, "prompt_tokens": 116.0}},
        "prefill_bound",
        "of 800 ms to the first token 700 ms compute the prompt (prompts of 116 tokens)",
    ),
    "more requests, at the limit": (
        {"now": {}, "limit": 8, "load": (4.0, 2.0)},
        "load_surge",
        "15 requests wait and 8 of 8 run while 80% of the KV cache are free",
    ),
    "not more requests but longer prompts": (
        {"now": {"prompt_tokens": 696.0}, "load": (2.1, 2.0)},
        "longer_prompts",
        "prompts of 696 tokens instead of 116 (x6.0)",
    ),
    "not more requests but longer answers": (
        {"now": {"output_tokens": 216.0}, "load": (2.1, 2.0)},
        "longer_outputs",
        "answers of 216 tokens instead of 72 (x3.0)",
    ),
    "a surge of slightly longer requests is a surge": (
        {"now": {"output_tokens": 80.0, "prompt_tokens": 130.0}, "load": (5.0, 2.0)},
        "load_surge",
        None,
    ),
    "the prefix cache is lost": (
        {"now": {"prefix_hit_rate": 0.0}},
        "prefix_cache_lost",
        "0 % of the prompt tokens are found in the prefix cache instead of 60 %",
    ),
    "hits that wander are no loss": ({"now": {"prefix_hit_rate": 0.51} | KV}, "kv_cache_full", None),
    "iterations take longer": (
        {"now": {}, "slow": 1.8},
        "slower_engine",
        "an iteration of the same size takes 1.8 times as long",
    ),
    "tokens take longer with no more of them, by the signals alone": (
        {"now": {"itl_ms": 45.0, "running": 4.5}},
        "slower_engine",
        "a token takes 45 ms instead of 20 ms with no more requests running",
    ),
    "tokens take longer because more run": ({"now": {"itl_ms": 45.0, "running": 8.0}, "limit": 8}, "concurrency_limited", None),
    "an engine that hangs looks idle": (
        {"now": {"qps": 0.0, "running": 0.0, "queue_depth": 0.0, "unanswered_rate": 1.0, "steps_per_s": 0.0}},
        "engine_stalled",
        "100% of the requests that were taken ended without an answer, while the engine shows neither running nor "
        "waiting ones: it hangs or is paused, restart it",
    ),
    "an engine that stands with requests in it": (
        {"now": {"qps": 0.0, "steps_per_s": 0.0}},
        "engine_stalled",
        "the engine makes no iteration while 8 requests run and 15 wait: it hangs or is paused, restart it",
    ),
    "half of them unanswered while others end is overload": (
        {"now": {"unanswered_rate": 0.5}, "limit": 8},
        "concurrency_limited",
        None,
    ),
    "met": ({"now": {"ttft_p95_ms": 300.0, "queue_depth": 0.0}}, "healthy", "TTFT P95 is 300 ms, the SLO is 500 ms"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_cause_with_its_evidence(name):
    arguments, cause, evidence = ROWS[name]
    found = diagnose(**arguments)
    assert found.cause == cause, found
    assert evidence is None or evidence in found.evidence, found.evidence


def test_where_it_is_narrow_is_told_once():
    found = diagnose(**ROWS["more ran before than the limit lets run"][0])
    assert sum("8 of 8 run" in text for text in found.evidence) == 1


def test_no_engine_that_hangs_is_changed():
    row = ROWS["an engine that stands with requests in it"][0]
    assert not diagnose(**row).curable


def test_waiting_is_a_share_of_the_time_to_the_first_token():
    found = diagnose({}, limit=8)
    assert (found.queue_ms, found.service_ms) == (5900.0, 70.0)
    assert found.queue_share == pytest.approx(5900 / 5970)


def test_of_a_token_there_is_no_queue():
    found = diagnose({"queue_depth": 0.0}, objective=ITL)
    assert (found.queue_ms, found.service_ms) == (None, 20.0)
