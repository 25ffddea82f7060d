"""The simulated language model: what it exports is what happened, twins go their own way, and the others do as published."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.llm import judge, policies, real
from benchmarks.llm.judge import PUBLISHED, Result, figures
from benchmarks.llm.loop import make_parts
from benchmarks.llm.scenarios import ONSET_S, STREAMS, Scenario, draw
from benchmarks.llm.source import START_S, WorldSource
from benchmarks.llm.vllm_service import Load, exported_p95_ms, plan, window_of
from benchmarks.llm.world import Faults, Mix, Profile, World
from detection.model import Service, Slo, Span

PROFILE = Profile("small", 1, 8.0, 0.06, 0.03, 0.04, 60_000, wave=0.0, noise=0.0, overhead_ms=10.0)
MIX = Mix(400.0, 0.5, 100.0, 0.6)
SERVICE = Service(name="simulated", serving="vllm", slo=Slo(ttft_p95_ms=100.0))


def world(rate: float = 6.0, sequences: int = 64, *, seed: int = 3, **change: object) -> World:
    faults = Faults(lambda t: rate, lambda t: MIX, **change)  # type: ignore[arg-type]
    return World(PROFILE, faults, sequences=sequences, tokens=2048, replicas=1, seed=seed)


def scenario(**change: object) -> Scenario:
    values = {"name": "x", "kind": "x", "causes": ("x",), "profile": PROFILE, "mix": MIX, "qps": 1.0, "cv2": 1.0,
              "sequences": 8, "tokens": 2048, "replicas": 1, "sequences_max": 128, "replicas_max": 4,
              "limits": {"ttft_p95_ms": 200.0, "itl_p95_ms": 60.0}}  # fmt: skip
    return Scenario(**{**values, **change})  # type: ignore[arg-type]


def test_the_source_tells_what_happened():
    simulated = world()
    simulated.advance(180.0)
    span = Span(START_S + 60.0, START_S + 180.0, 10.0)
    names = ("qps", "arrivals_per_s", "itl_ms", "generation_tokens_per_s", "prompt_tokens", "ttft_p95_ms", "running")
    values = WorldSource(simulated, 60.0).read([SERVICE], names, span)["simulated"].values
    last = simulated.seconds[120:180]
    gaps = np.array([gap for second in last for gap in second.gaps])
    assert values["itl_ms"][-1] == pytest.approx(1e3 * np.average(gaps[:, 0], weights=gaps[:, 1]))
    assert values["generation_tokens_per_s"][-1] == pytest.approx(sum(s.generated for s in last) / 60)
    assert values["qps"][-1] == pytest.approx(6.0, rel=0.3) and values["arrivals_per_s"][-1] == pytest.approx(
        6.0, rel=0.3
    )
    assert values["prompt_tokens"][-1] == pytest.approx(400, rel=0.15)
    assert values["ttft_p95_ms"][-1] == pytest.approx(simulated.p95_ms("ttft_p95_ms", 120, 180), rel=0.6)
    # Little: running = rate of tokens times the time of one.
    little = values["generation_tokens_per_s"][-1] * values["itl_ms"][-1] / 1e3
    assert values["running"][-1] == pytest.approx(little, rel=0.2)


def test_too_few_seats_make_requests_wait_and_a_small_cache_preempts():
    roomy, narrow, small = world(), world(sequences=2), world(room=lambda t: 0.05)
    for one in (roomy, narrow, small):
        one.advance(120.0)
    assert roomy.seconds[-1].waiting < 5 < narrow.seconds[-1].waiting
    assert sum(s.preempted for s in small.seconds) > 10 > sum(s.preempted for s in roomy.seconds)
    assert narrow.p95_ms("itl_p95_ms", 60, 120) < roomy.p95_ms("itl_p95_ms", 60, 120)


def test_twins_see_the_same_requests_and_go_their_own_way():
    one = world()
    one.advance(60.0)
    other = one.twin()
    other.set_limits(2, 2048)
    one.advance(180.0), other.advance(180.0)
    assert [s.came for s in one.seconds] == [s.came for s in other.seconds]
    assert one.seconds[-1].sequences == 64 and other.seconds[-1].sequences == 2
    assert other.p95_ms("ttft_p95_ms", 150, 180) > 2 * one.p95_ms("ttft_p95_ms", 150, 180)


def test_a_new_limit_waits_for_its_replicas_and_loses_no_request():
    one = world()
    one.advance(30.0)
    one.set_limits(32, 1024)
    one.advance(30.0 + PROFILE.restart_s)
    assert one.seconds[-1].sequences == 64
    one.advance(200.0)
    assert one.limits == (32, 1024) and not one.old
    came, begun = (sum(getattr(s, name) for s in one.seconds) for name in ("came", "begun"))
    assert came - begun == one.seconds[-1].waiting


def test_streams_are_disjoint_and_a_draw_is_the_same_twice():
    assert abs(STREAMS["dev"] - STREAMS["report"]) > 100_000
    one, other = draw("dev", 6), draw("dev", 6)
    assert repr(one.profile) == repr(other.profile) and one.limits == other.limits


def test_published_policies_scale_a_queue_out_and_leave_a_calm_service_alone():
    surge = scenario(surge=lambda t: 12.0 if t >= 0 else 1.0)
    for name in PUBLISHED:
        calm = policies.POLICIES[name](scenario(), scenario().begin(1))
        assert calm.world.desired == 1, name
        busy = policies.POLICIES[name](surge, surge.begin(1))
        assert busy.world.desired > 1 and busy.actions[0].lever == "replicas", name
        assert busy.actions[0].at_s > ONSET_S


def test_the_oracle_finds_the_free_cure_and_says_where_there_is_none():
    low = scenario(misset=1, surge=lambda t: 1.5)
    run, curable = policies.oracle(low, low.begin(1), ONSET_S + 60.0)
    assert curable and run.world.desired == 1 and run.world.limits[0] > 1 and policies.cured(low, run.world)
    hopeless = scenario(slow=20.0)
    run, curable = policies.oracle(hopeless, hopeless.begin(1), ONSET_S + 60.0)
    assert not curable and not run.actions


def test_the_loop_reads_limits_that_are_on_their_way_and_bounds_of_both():
    one = scenario().begin(1)
    parts = make_parts(scenario(), one)
    service = parts.services["simulated"]
    assert parts.actuator(service, "batch_size").read(service).values["max_num_seqs"] == 8
    one.set_limits(16, 2048)
    assert parts.actuator(service, "batch_size").read(service).values["max_num_seqs"] == 16
    assert service.engine == "continuous_batching" and service.levers["batch_size"].options["tokens_max"] == 8192


def result(policy: str, **change: object) -> Result:
    values = {
        "scenario": "x",
        "trouble": "surge",
        "policy": policy,
        "kind": "curable",
        "first": False,
        "held": False,
        "actions": 1,
        "wrong": 0,
        "violation_min": 4.0,
        "gpu_hours": 2.0,
        "cause": "",
        "cause_right": True,
    }
    return Result(**{**values, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(("settled_s", "waited"), [(0.0, True), (140.0, False)])
def test_a_prediction_is_compared_with_what_the_loop_looked_at(settled_s, waited):
    """A burst of twenty seconds queues for three minutes; the loop waits until the queue is gone."""
    simulated = World(PROFILE, Faults(lambda t: 60.0 if 500 <= t < 520 else 2.0, lambda t: MIX), sequences=8,
                      tokens=2048, replicas=1, seed=3)  # fmt: skip
    simulated.advance(900.0)
    told = {"ttft_p95_ms": (50.0, 40.0, 60.0)}
    action = policies.Action(560.0, "replicas", "1 -> 2", 0.0, predicted=told, settled_s=settled_s)
    (seen,) = judge.observed(policies.Run(simulated, [action]))
    assert (seen[4] > 10_000.0) is waited


def test_figures_compare_with_the_best_published_policy():
    seen = [("ttft_p95_ms", 100.0, 80.0, 120.0, 110.0), ("ttft_p95_ms", 100.0, 80.0, 120.0, 200.0)]
    rows = [result("slotune", first=True, violation_min=2.0, observed=seen), result("hpa", violation_min=5.0),
            result("wva"), result("slotune", kind="needless", held=True, actions=0)]  # fmt: skip
    found = figures(rows)
    assert (found["best_published"], found["violation_min_of_best_published"]) == ("wva", 0.5)
    assert (found["first_change_right"], found["hold_right"], found["wrong"]) == (1.0, 1.0, 0.0)
    assert (found["interval_covers"], found["within_25_percent"]) == (0.5, 0.5)


def test_scrapes_of_a_server_become_the_presets_signals():
    def at(seconds: float) -> dict[str, float]:
        n = 10 * seconds
        found = {
            "vllm:request_success_total": n,
            "vllm:num_requests_waiting": 0.0,
            "vllm:generation_tokens_total": 50 * n,
            "vllm:inter_token_latency_seconds_sum": 0.02 * 49 * n,
            "vllm:inter_token_latency_seconds_count": 49 * n,
            "vllm:request_prompt_tokens_sum": 80 * n,
            "vllm:request_prompt_tokens_count": n,
        }
        found |= {f"vllm:request_prompt_tokens_bucket@{edge}": n * share
                  for edge, share in (("50", 0.1), ("100", 0.9), ("200", 1.0), ("+Inf", 1.0))}  # fmt: skip
        return found

    window = window_of([(1000.0 + 2.5 * k, at(2.5 * k)) for k in range(20)], 15.0, 5.0)
    assert window.span.start_s == 1015.0, "before, no rate over a whole window is known"
    assert window.values["qps"].tolist() == pytest.approx([10.0] * window.span.points)
    assert window.values["itl_ms"][-1] == pytest.approx(20.0)
    assert window.values["prompt_tokens_p95"][-1] == pytest.approx(150.0)
    arrivals = plan(Load(5.0, (10, 20), (5, 6)), 100.0, np.random.default_rng(1))
    assert len(arrivals) == 500 and {output for _, _, output in arrivals} == {5}
    assert sorted(prompt for _, prompt, _ in arrivals) == [10 + k // 50 for k in range(500)]
    gaps = np.diff([at_s for at_s, _, _ in arrivals])
    assert (gaps >= 0).all() and gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.15), "open-loop, as Poisson's"


def test_a_percentile_is_read_from_what_a_histogram_counted_meanwhile():
    def at(seconds: float) -> dict[str, float]:
        before, since = 10.0 * seconds, max(0.0, 10.0 * (seconds - 10.0))
        counts = {"0.01": before, "0.025": before + 0.9 * since, "0.05": before + since, "+Inf": before + since}
        return {f"vllm:inter_token_latency_seconds_bucket@{edge}": n for edge, n in counts.items()}

    scrapes = [(1000.0 + k, at(float(k))) for k in range(31)]
    early, late = (exported_p95_ms(scrapes, "inter_token_latency_seconds", *span) for span in ((0, 10), (10, 30)))
    assert early == pytest.approx(9.5), "nothing had fallen into the second bucket yet"
    assert late == pytest.approx(10 + 15 * (0.95 - 0.5) / 0.45)


def test_rows_of_a_real_server_become_figures():
    def found(value: float) -> dict[str, list[float]]:
        return {name: [value, 80.0, 130.0] for name in real.HISTOGRAMS}

    rows = [{"observed": dict.fromkeys(real.HISTOGRAMS, 100.0), "predicted": found(value),
             "client_observed": dict.fromkeys(real.HISTOGRAMS, 140.0), "client_predicted": found(value)}
            for value in (110.0, 140.0)]  # fmt: skip
    assert real.figures(rows)["ttft_p95_ms"] == {"within_25_percent": 0.5, "interval_covers": 1.0}
    assert real.figures(rows)["client_ttft_p95_ms"] == {"within_25_percent": 1.0, "interval_covers": 0.0}
    assert len(real.CHANGES) >= 16 and len({change.series for change in real.CHANGES}) == 4
