"""The fluid service that policies are trained on, the training itself, and the table of who wins where."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.control.cells import LOOP, Cells
from benchmarks.control.policies.slotune import Acting
from benchmarks.policies import evaluate, page
from benchmarks.policies.fluid import LOOK, OPENS, SWEEP, Fluid
from benchmarks.policies.incidents import STEPS, Incidents, table
from benchmarks.policies.write import rounded, write
from tests.fakes.planning import make_incident, make_observation
from tuning import planning
from tuning.planning import LEARNED
from tuning.planning.features import FEATURES
from tuning.planning.moves import NAMES
from tuning.planning.settings import PlanningSettings
from tuning.planning.weights_file import read

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / ".policies" / "bin" / "python"


def service(count: int = 1, **changes: object) -> Incidents:
    """Two replicas of batches of 4 (10 + 5 ms a row), 100 requests/s, an SLO of 200 ms; nothing goes wrong."""
    values: dict[str, float] = {
        "alpha_ms": 10.0, "beta_ms": 5.0, "curve": 0.0, "spread": 0.1, "overhead_ms": 2.0, "gain": 2.0, "start_s": 20.0,
        "queue_limit": 500.0, "slo_ms": 200.0, "qps": 100.0, "cv2": 1.0, "batch": 4.0, "timeout_ms": 0.0, "int8": 0.0,
        "replicas": 2.0, "batch_max": 16.0, "replicas_max": 8.0, "precision": 1.0, "judged": float(STEPS),
    }  # fmt: skip
    series = dict.fromkeys(("slow_first", "slow_rest", "peak_first", "peak_rest"), 1.0) | {"rate": 100.0, "lost": 0.0}
    found = Incidents(
        **{name: np.full(count, value) for name, value in values.items()},
        **{name: np.full((count, STEPS), value) for name, value in series.items()},
    )
    return replace(found, **{name: np.broadcast_to(v, getattr(found, name).shape) for name, v in changes.items()})


def driven(incidents: Incidents, move: str = "hold") -> Fluid:
    """The world at its end, with the same move at every question, as long as it is open."""
    world = Fluid(incidents, seed=1)
    while not world.done:
        _, free = world.question()
        world.step(np.where(free[:, NAMES.index(move)], NAMES.index(move), 0))
    return world


def test_a_service_that_carries_its_load_has_no_incident():
    world = driven(service())
    assert world.minutes[0] == 0 and world.cured()[0] and not world.opened[0] and world.changes[0] == 0


def test_more_than_is_carried_waits_in_the_queue_until_that_is_full():
    # Two replicas carry 2 * 4 / 30 ms = 267/s: of 400/s a third is refused in the end.
    world = driven(service(rate=400.0))
    assert world.queue[1, 0] == pytest.approx(500.0)
    assert world.failed.mean() == pytest.approx(1 - 266.7 / 400, abs=0.01)
    assert world.p95.mean() == pytest.approx(1e3 * 500 / 133.3, rel=0.1)
    assert not world.cured()[0] and world.minutes[0] > 15


@pytest.mark.parametrize(
    ("move", "cures"),
    [("batch x4", True), ("replicas x2", True), ("int8", True), ("no batch wait", False), ("hold", False)],
)
def test_what_adds_enough_capacity_cures(move, cures):
    world = driven(service(rate=300.0, slo_ms=400.0), move)
    assert bool(world.cured()[0]) is cures


def test_a_question_comes_after_the_rule_has_spoken_and_not_while_a_change_is_looked_at():
    world = Fluid(service(rate=400.0), seed=1)
    assert world.at == SWEEP and not world.asked()[0]
    world.step(np.array([0]))
    assert world.asked()[0] and world.opened[0] and world.onset[0] >= OPENS - 1
    world.step(np.array([NAMES.index("one replica more")]))
    asked = []
    while not world.done:
        asked.append(bool(world.asked()[0]))
        world.step(np.array([0]))
    assert not any(asked[: LOOK // SWEEP])


def test_a_change_that_did_not_help_is_taken_back_and_its_lever_is_not_pulled_again():
    # A row costs the same in every batch: a larger one carries nothing more.
    world = driven(service(rate=400.0, alpha_ms=0.0, beta_ms=10.0), "batch x2")
    assert world.changes[0] == 1 and world.batch[0] == 4 and world.tried[0, 0] == 1


def test_one_slow_replica_shows_in_p95_and_in_what_a_policy_sees():
    slow = service(slow_first=3.0, peak_first=3.0)
    world = Fluid(slow, seed=1)
    assert world.p95.mean() > 1.5 * Fluid(service(), seed=1).p95.mean()
    assert world.seen()["slowest"][0] == pytest.approx(3.0)


def test_lost_replicas_are_missing_and_do_not_come_back_by_asking():
    world = Fluid(service(replicas=4.0, lost=2.0), seed=1)
    seen = world.seen()
    assert (world.running[0], seen["base_replicas"][0], seen["replicas_max"][0]) == (2.0, 4.0, 6.0)


def test_the_same_seed_gives_the_same_world():
    few = table(300_000, 6)
    one, other = (evaluate.run(few, evaluate.at_random(3), seed=5) for _ in range(2))
    assert one == other and one != evaluate.run(few, evaluate.at_random(4), seed=5)


def test_drawn_incidents_become_rows_and_those_that_no_lever_cures_are_left_out(tmp_path):
    found = table(300_000, 12, tmp_path)
    assert 6 <= found.count <= 12 and (found.rate > 0).all() and (found.slow_rest > 0).all()
    again = table(300_000, 12, tmp_path)
    assert (again.rate == found.rate).all() and again.count == found.count
    assert (found.take(np.array([0, 0])).slo_ms == found.slo_ms[0]).all()


def test_what_is_written_can_be_read_back(tmp_path):
    weights = np.linspace(-1, 1, len(NAMES) * len(FEATURES)).reshape(len(NAMES), -1)
    write(tmp_path / "ppo.json", "ppo", [(weights, np.zeros(len(NAMES)))], {"told": "a test"})
    policy = read("ppo", str(tmp_path / "ppo.json"))
    assert policy.trained == "a test" and policy.layers[0][0] == pytest.approx(weights, rel=1e-3)
    assert rounded(np.array([1.23456789])) == [1.235]


@pytest.mark.skipif(not TRAINER.exists(), reason="no environment to train in: scripts/policies .policies")
def test_a_few_steps_of_each_training_write_weights_that_can_be_read(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [str(TRAINER), "-m", "benchmarks.policies", "--smoke", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("evolved", "ppo"):
        assert read(name, str(tmp_path / f"{name}.json")).scores(np.zeros((1, len(FEATURES)))).shape == (1, len(NAMES))


def test_a_learned_policy_is_no_part_of_the_ground():
    """Its file may come and go without throwing away what the simple policies' cells hold."""
    registry = (ROOT / "benchmarks" / "control" / "policies" / "__init__.py").read_text()
    for name in LEARNED:
        assert name in LOOP and (ROOT / "benchmarks" / "control" / "policies" / f"{name}.py").exists()
        assert name not in registry


def test_a_cell_of_a_learned_policy_belongs_to_its_weights(tmp_path):
    cells = Cells("key", tmp_path)
    for part in ("hpa", *LEARNED):
        cells.put("report 1", 1, part, {"of": part})
        assert cells.get("report 1", 1, part) == {"of": part}
    names = sorted(path.name for path in (tmp_path / "key").iterdir())
    assert [re.sub(r"-[0-9a-f]{16}", "-DIGEST", name) for name in names] == [
        "report-1.1.evolved-DIGEST.json", "report-1.1.hpa.json", "report-1.1.ppo-DIGEST.json",
    ]  # fmt: skip


@pytest.mark.parametrize("name", LEARNED)
def test_in_the_proving_ground_a_learned_policy_is_carried_out(name):
    """A surge that a larger batch carries: the loop makes what the policy chooses, and only there."""
    chosen = Acting(planning.get(name)(PlanningSettings()))
    plan = chosen.propose(make_incident(), make_observation(), ())
    assert plan.mode == "act" and plan.chosen.changes
    assert planning.get(name)(PlanningSettings()).propose(make_incident(), make_observation(), ()).mode == "observe"
    assert chosen.name == name and chosen.spares(make_incident(), make_observation(), (), plan.chosen.changes[0]) == ""


# The table -------------------------------------------------------------------------------------------------------

CASES = {
    "report 0": {"drawn": "surge step", "kind": ["curable"], "slo_violation_min": {"slotune": 2.0, "ppo": 1.0, "hpa": 5.0}},
    "report 1": {"drawn": "surge step + slower", "kind": ["curable"], "slo_violation_min": {"slotune": 2.0, "ppo": 2.1, "hpa": 5.0}},
    "report 2": {"drawn": "errors", "kind": ["incurable"], "slo_violation_min": {"slotune": 9.0, "ppo": 9.0, "hpa": 9.0}},
}  # fmt: skip


def test_who_wins_where_counts_the_curable_incidents_and_lets_several_win():
    won = page.wins({"by_case": CASES})
    assert won == {"slotune": 1, "ppo": 2, "hpa": 0}


def test_a_comparison_is_over_the_curable_incidents_with_its_interval():
    ratio, low, high = page.against({"by_case": CASES}, "ppo", "slotune")
    assert ratio == pytest.approx(3.1 / 4.0)
    assert (low, high) == pytest.approx((0.5, 1.05))


def test_minutes_by_trouble_count_a_pair_for_both():
    found = page.by_trouble({"by_case": CASES})
    assert found["surge step"] == (2, {"slotune": 4.0, "ppo": 3.1, "hpa": 10.0})
    assert found["slower"] == (1, {"slotune": 2.0, "ppo": 2.1, "hpa": 5.0})
    assert "errors" not in found


def test_the_page_is_written_between_its_markers(tmp_path):
    path = tmp_path / "learning.md"
    path.write_text("no markers")
    with pytest.raises(ValueError, match="nowhere to put"):
        page.between(path, ["x"])
    path.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.between(path, ["one", "two"])
    assert path.read_text() == f"before\n{page.BEGIN}\none\ntwo\n{page.END}\nafter\n"
