"""Plans for a language model's server: the right limit, in the right direction, and never one whose effect is unknown."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detection.model import Slo
from tests.contracts.engine_subjects import SUBJECTS, WAVE, token_signals
from tests.fakes.planning import make_incident, make_observation, make_service, make_settings, make_window
from tuning.model import Interval, Observation, Plan, Setting
from tuning.planning import explain, get, tokens
from tuning.planning import step_model as sm
from tuning.planning.effects import Posterior
from tuning.planning.engines import get as engine_of
from tuning.planning.forecast import Forecast
from tuning.planning.ports import Candidate, Knowledge
from tuning.planning.ranking import Ranked
from tuning.planning.settings import PlanningSettings
from tuning.planning.step_model import Measured
from tuning.planning.token_predict import OBJECTIVES, Flow, capacity_now, requests_of
from tuning.planning.token_queue import Limits

SETTINGS = PlanningSettings(rate_window_s=10.0, verify_window_s=60.0)
ENGINE = engine_of("continuous_batching")
LEARNED = ENGINE.learn(None, make_window(token_signals(WAVE)), ("1", "fp32"), 10.0)
ONSET = 37
"""First of the 61 points that is after the onset (120 s before the last)."""


def after(calm: object, then: object) -> np.ndarray:
    before, late = (np.broadcast_to(np.asarray(value, dtype=float), (61,)) for value in (calm, then))
    return np.where(np.arange(61) < ONSET, before, late)


def observed(
    *, sequences: int = 64, rate: float = 60.0, factor: float = 1.0, slo: Slo | None = None, state: object = LEARNED,
    **change: object,
) -> Observation:  # fmt: skip
    """Two replicas of the contract's server: calm at 60/s, then another rate, pace or signals."""
    calm, late = token_signals(60.0), token_signals(rate, factor)
    signals = {name: after(calm[name], late[name]) for name in calm} | {
        n: after(calm.get(n, 0.0), v) for n, v in change.items()
    }
    limits = Setting(
        lever="batch_size",
        values={"max_num_seqs": sequences, "max_num_batched_tokens": 2048},
        facts={"kv_cache_tokens": 40_000, "block_size": 16},
    )
    service = make_service(batch_max=512).model_copy(
        update={"engine": "continuous_batching", "slo": slo or Slo(ttft_p95_ms=60.0, itl_p95_ms=12.0, for_s=30.0)}
    )
    settings = {**make_settings(), "batch_size": limits}
    return make_observation(signals, service=service, settings=settings, latency_model=state)


def propose(seen: Observation) -> Plan:
    incident = make_incident("latency").model_copy(update={"opened_at_s": seen.at_s - 5.0 * (60 - ONSET)})
    return get("model")(SETTINGS).propose(incident, seen, ())


def waiting(seen: dict[str, object]) -> dict[str, object]:
    growing = np.maximum(0.0, np.linspace(-900.0, 600.0, 61))
    return {"queue_depth": growing, "ttft_p95_ms": 9000.0, "arrivals_per_s": 60.0, **seen}


def test_requests_that_wait_for_a_seat_get_more_seats_at_no_cost():
    plan = propose(observed(sequences=1, **waiting({"running": 1.0})))
    change = plan.chosen.changes[0]
    assert plan.chosen.levers == ("batch_size",) and int(change.new["max_num_seqs"]) > 1, plan.reason
    assert plan.objective is not None and plan.objective.signal == "ttft_p95_ms" and plan.lease_s is None
    assert plan.chosen.predicted_p95_ms is not None and plan.chosen.predicted_p95_ms.value < 60.0


def test_what_is_predicted_of_the_change_names_both_limits_and_keeps_the_other():
    change = propose(observed(sequences=1, **waiting({"running": 1.0}))).chosen.changes[0]
    assert set(change.new) == set(change.old) == {"max_num_seqs", "max_num_batched_tokens"}
    assert change.new["max_num_batched_tokens"] == change.old["max_num_batched_tokens"] == 2048


@pytest.mark.parametrize(
    ("backlog", "replicas", "spare"),
    [
        # All that two replicas carry beyond what comes.
        (600.0, 2, lambda carried, comes: 2 * carried - comes),
        # New replicas take what comes; the two that have the queue work it off at what they carry.
        (600.0, 8, lambda carried, comes: 2 * carried),
        (600.0, 3, lambda carried, comes: min(2 * carried, 3 * carried - comes)),
    ],
)
def test_what_waits_is_worked_off_by_the_replicas_it_waits_for(backlog, replicas, spare):
    seen = observed(arrivals_per_s=60.0)
    situation = dataclasses.replace(ENGINE.assess(make_incident(), seen, SETTINGS, float("-inf")), backlog=backlog)
    carried, comes = capacity_now(situation) / 2, situation.arrivals.qps.value
    stay = ENGINE.unchanged(seen, situation)
    asked = dataclasses.replace(stay, setting={**stay.setting, "replicas": replicas})
    drain_s = ENGINE.predict([asked], seen, situation, Knowledge(), SETTINGS)[0].drain_s
    assert drain_s == pytest.approx(backlog / spare(carried, comes), rel=0.1)


def test_a_queue_of_many_minutes_is_no_reason_to_let_it_grow():
    growing = np.maximum(0.0, np.linspace(-6e6, 4e6, 61))
    seen = observed(sequences=1, **waiting({"running": 1.0, "queue_depth": growing}))
    plan = propose(seen)
    assert plan.chosen.changes and "drains in about" in plan.reason, plan.reason
    assert plan.settle_s == 600.0


def test_the_effect_of_what_nobody_has_seen_is_not_chosen():
    """At a hundred times the load hundreds of sequences would run, of which nothing is known but the prior."""
    seen = observed(sequences=4, **waiting({"arrivals_per_s": 4000.0, "running": 4.0}))
    plan = propose(seen)
    unknown = [option for option in plan.rejected if "never seen running" in option.reason]
    assert unknown and all(not option.feasible for option in unknown)
    assert "batch_size" not in plan.chosen.levers


def test_what_the_present_setting_shows_already_is_no_option():
    plan = propose(observed(ttft_p95_ms=70.0))
    again = [option for option in plan.rejected if "so does the present setting" in option.reason]
    assert any(option.levers == ("batch_size",) for option in again)


@pytest.mark.parametrize(("waiting", "luck"), [(5_000.0, True), (15_000.0, False)])
def test_a_queue_longer_than_a_rate_window_is_not_the_luck_of_a_few_requests(waiting, luck):
    """Two come a second; the queue would be gone after 6 s, or after 17 s, of a window of 10 s."""
    seen = observed(rate=2.0, arrivals_per_s=2.0, ttft_p95_ms=90.0, queue_depth=waiting)
    incident = make_incident("latency").model_copy(update={"opened_at_s": seen.at_s - 15.0})
    plan = get("model")(SETTINGS).propose(incident, seen, ())
    assert (plan.chosen.changes == () and "it is looked at again soon" in plan.reason) is luck, plan.reason


def test_a_moment_of_bad_luck_restarts_nothing():
    seen = observed(ttft_p95_ms=70.0)
    incident = make_incident("latency").model_copy(update={"opened_at_s": seen.at_s - 15.0})
    plan = get("model")(SETTINGS).propose(incident, seen, ())
    assert plan.chosen.changes == () and plan.chosen.meets_slo
    assert plan.reason.startswith("hold: the present setting is predicted to do"), plan.reason


@pytest.mark.parametrize(("queue", "luck"), [(200.0, True), (60_000.0, False)])
def test_a_queue_that_takes_long_to_drain_is_no_luck_of_a_moment(queue, luck):
    late = np.where(np.arange(61) < 57, 0.0, queue)
    seen = observed(ttft_p95_ms=9000.0, queue_depth=late)
    incident = make_incident("latency").model_copy(update={"opened_at_s": seen.at_s - 15.0})
    plan = get("model")(SETTINGS).propose(incident, seen, ())
    assert ("a change restarts servers" in plan.reason) is luck, plan.reason


def test_options_meet_the_same_requests_whose_rate_and_mean_lengths_are_what_was_asked_for():
    seen = observed()
    situation = ENGINE.assess(make_incident(), seen, SETTINGS, float("-inf"))
    size, step = dataclasses.replace(situation.size, output=35.0, output_p95=90.0), situation.steps.step()
    flows = [Flow(240.0, 2.0, step, Limits(seats, 2048), size, 3) for seats in (1, 64)]
    one, other = (requests_of(flow, 150, 1) for flow in flows)
    assert one.running < other.running and one.prompt[one.running :] == other.prompt[other.running :]
    assert one.at_s[one.running :] == other.at_s[other.running :]
    assert one.at_s[-1] == pytest.approx(150 / 240.0)
    assert np.mean(one.prompt[one.running :]) == pytest.approx(size.computed, rel=0.03)
    assert np.mean(one.output[one.running :]) == pytest.approx(size.output, rel=0.03)
    assert np.std(one.output[one.running :]) > 0.2 * size.output


def test_without_a_learned_iteration_nothing_is_changed_and_the_reason_is_said():
    seen = observed(state=None, **waiting({}))
    untaught = dataclasses.replace(
        seen,
        window=dataclasses.replace(
            seen.window, values={n: v for n, v in seen.window.values.items() if n not in ("itl_ms", "prefill_ms")}
        ),
    )
    plan = propose(untaught)
    assert plan.chosen.changes == () and plan.reason.startswith("hold:"), plan.reason


def test_an_engine_that_became_slower_is_told_from_more_load():
    seen = observed(factor=2.5, itl_p95_ms=20.0)
    situation = ENGINE.assess(make_incident(), seen, SETTINGS, float("-inf"))
    assert 2.0 < (situation.slow or 0.0) < 3.0
    calm = observed()
    usual = ENGINE.assess(make_incident(), calm, SETTINGS, float("-inf"))
    assert 0.9 < (usual.slow or 0.0) < 1.1
    assert capacity_now(situation) < 0.6 * capacity_now(usual)


def test_the_cache_is_read_from_the_server_else_from_what_sequences_take():
    seen = observed(running=10.0, kv_usage=0.5)
    situation = ENGINE.assess(make_incident(), seen, SETTINGS, float("-inf"))
    assert situation.kv_tokens == 40_000
    silent = dict(seen.settings)
    silent["batch_size"] = silent["batch_size"].model_copy(update={"facts": {}})
    found = ENGINE.assess(make_incident(), dataclasses.replace(seen, settings=silent), SETTINGS, float("-inf"))
    assert found.kv_tokens == 10.0 * (found.size.context + 8) / 0.5
    assert SUBJECTS["continuous_batching"].calm["kv_usage"] == 0.2


def of_the_present(seen: Observation, **situation: object):
    now = dataclasses.replace(ENGINE.assess(make_incident(), seen, SETTINGS, float("-inf")), **situation)
    return ENGINE.predict([ENGINE.unchanged(seen, now)], seen, now, Knowledge(), SETTINGS)[0]


def test_a_prediction_is_told_as_the_servers_histogram_will_read_it():
    seen = observed(arrivals_per_s=60.0)
    plain = of_the_present(seen)
    edges = {"itl_p95_ms": (1.0, 4.0, 64.0), "ttft_p95_ms": (1000.0,)}
    bucketed = dataclasses.replace(seen, service=seen.service.model_copy(update={"edges_ms": edges}))
    read = of_the_present(bucketed)
    assert plain.exported == {} and plain.told("itl_p95_ms") == plain.shown["itl_p95_ms"]
    assert read.shown == plain.shown and read.meets == plain.meets, "no decision rests on where a bucket ends"
    assert 4.0 < plain.shown["itl_p95_ms"].value < 8.0
    assert read.told("itl_p95_ms").value == pytest.approx(4 + 60 * 0.95, rel=0.01)
    assert read.told("ttft_p95_ms").value == pytest.approx(950.0, rel=0.01)
    assert read.told("e2e_p95_ms") == plain.shown["e2e_p95_ms"]


@pytest.mark.parametrize(("rate", "either"), [(1.0, False), (14.0, True), (36.0, False)])
def test_gaps_of_which_one_in_twenty_holds_a_prompt_may_show_either_and_the_plan_says_so(rate, either):
    """An iteration takes 5 ms, 45 ms with a prompt of 100 tokens: at 7/s a replica one in twenty has one."""
    line = np.array((5.0, 0.02, 0.4, 0.0))
    rows = [np.array((1.0, n, p, 110.0 * n)) for n in (1.0, 3.0, 9.0) for p in (0.0, 30.0, 100.0)]
    seen = [Measured(float(k), float(row @ line), tuple(row), row[1], row[2]) for k, row in enumerate(rows * 4, 1)]
    come = Forecast(Interval(value=rate, low=0.95 * rate, high=1.05 * rate), "given")
    found = of_the_present(observed(arrivals_per_s=rate), steps=sm.learn(sm.StepModel(), seen), arrivals=come,
                           cv2=1.0, cv2_sd=0.0)  # fmt: skip
    shown = found.shown["itl_p95_ms"]
    assert ("hold somebody's prompt" in found.edge) is either, found.edge
    if either:
        assert shown.low < 10.0 and shown.high > 35.0, "the interval holds both"
    item = Ranked(Candidate({}, ()), found, Posterior(3.0, 1.0, 0, 0), 10.0)
    told = {name: explain.chosen(item, propose(observed()).diagnosis, {name: 60.0}, "") for name in OBJECTIVES[1:]}
    assert [name for name, text in told.items() if "is luck" in text] == (["itl_p95_ms"] if either else [])


@pytest.mark.parametrize(("rate", "factor", "told"), [(900.0, 1.0, True), (600.0, 2.5, False)])
def test_as_many_sequences_as_run_since_the_onset_were_seen_running(rate, factor, told):
    """The calm ran five at once. With 15 times the load sixty have for two minutes, which is no guess any more; where
    the service may have become slower as well, its figures fit no line, and nothing is known beyond the calm."""
    steps = {name: {**line, "updated_s": 0.0} for name, line in LEARNED["steps"].items()}
    surge = observed(rate=rate, factor=factor, arrivals_per_s=rate, itl_p95_ms=20.0, state={"steps": steps})
    incident = make_incident("latency").model_copy(update={"opened_at_s": surge.at_s - 5.0 * (60 - ONSET)})
    since = ENGINE.assess(incident, surge, SETTINGS, float("-inf"))
    calm = since.learned[since.model_key]
    assert calm.is_guess(58.0, 110.0) and since.steps.is_guess(58.0, 110.0) is not told
    if told:
        assert since.steps.sequences_max > 10 * calm.sequences_max
        step = since.steps.step().scaled(since.pace)
        assert step.base_ms + 58.0 * (step.sequence_ms + 110 * step.kv_ms) == pytest.approx(5 + 0.02 * 58, rel=0.05)
    else:
        assert since.steps == calm


def of_three_sequences(ratio: float, at_s: float, *, exact: bool = False) -> Measured:
    """What the line of calm traffic says of three sequences, times `ratio`."""
    features = (1.0, 3.0, 5.0, 330.0)
    mean, _ = calm_line().predict(features)
    return Measured(at_s, ratio * mean, features, 3.0, 5.0, exact)


def calm_line() -> sm.StepModel:
    (line,) = sm.load(LEARNED).values()
    return line


def test_what_fits_no_line_teaches_nothing_beyond_the_calm():
    """A ratio of 1 and one of 3 say neither that the engine is slower nor that it is not."""
    line = calm_line()
    fits = tokens.since(line, 1.0, 0.05, [of_three_sequences(1.02, line.updated_s + k) for k in (1.0, 2.0)])
    assert fits.n > line.n
    parted = [of_three_sequences(ratio, line.updated_s + ratio) for ratio in (1.0, 3.0)]
    assert tokens.since(line, 2.0, 0.7, parted) == line


def test_how_slow_the_engine_is_is_told_by_what_holds_however_requests_come():
    line = calm_line()
    bursts = [of_three_sequences(0.6, 1.0), of_three_sequences(0.6, 2.0)]
    assert tokens.pace(line, bursts)[0] == pytest.approx(0.6)
    sure = [of_three_sequences(2.0, k, exact=True) for k in (1.0, 2.0)]
    slow, error = tokens.pace(line, bursts + sure)
    assert slow == pytest.approx(2.0) and error < 0.2


def test_sequences_that_throw_each_other_out_teach_nothing():
    steps = {name: {**line, "updated_s": 0.0} for name, line in LEARNED["steps"].items()}
    surge = observed(rate=900.0, arrivals_per_s=900.0, itl_p95_ms=20.0, preemptions_per_s=5.0, state={"steps": steps})
    incident = make_incident("latency").model_copy(update={"opened_at_s": surge.at_s - 5.0 * (60 - ONSET)})
    since = ENGINE.assess(incident, surge, SETTINGS, float("-inf"))
    assert since.steps == since.learned[since.model_key]


@pytest.mark.parametrize(
    "missing", [("itl_ms", "prefill_ms"), ("prompt_tokens", "output_tokens"), ("qps", "arrivals_per_s")]
)
def test_metrics_of_an_unknown_version_end_in_a_sentence_and_no_change(missing):
    """What another version calls otherwise is absent: nothing learned, or no lengths, or no load."""
    seen = observed(sequences=1, state=None if "itl_ms" in missing else LEARNED, **waiting({"running": 1.0}))
    left = {name: values for name, values in seen.window.values.items() if name not in missing}
    plan = propose(dataclasses.replace(seen, window=dataclasses.replace(seen.window, values=left)))
    assert plan.chosen.changes == () and plan.reason.startswith("hold:"), plan.reason
    assert "cannot be predicted yet: nothing is changed on a guess" in plan.reason


def test_counters_that_begin_anew_teach_nothing_and_the_plan_stays_what_it_was():
    """A restart in the middle of the incident: no rate for a moment, then rates as before."""
    seen = observed(sequences=1, **waiting({"running": 1.0}))
    holes = {name: np.where(np.arange(61) == 50, np.nan, values) for name, values in seen.window.values.items()}
    restarted = dataclasses.replace(seen, window=dataclasses.replace(seen.window, values=holes))
    one, other = propose(seen), propose(restarted)
    assert one.chosen.changes and one.chosen.changes[0].new == other.chosen.changes[0].new
