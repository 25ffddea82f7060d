"""The numbers that steer a plan are fixed by measurements: changing one takes a new measurement, said here as well."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

from tuning.planning import thresholds

SOURCE = Path(thresholds.__file__).read_text()
FIXED = {
    "Z90": 1.645,
    "LEVEL_POINTS": 3,
    "VARIATION_POINTS": 6,
    "BASELINE_HISTORY_S": 21600.0,
    "MAY_QUEUE": 0.85,
    "SATURATED": 0.95,
    "SATURATED_WINDOW": 0.3333333333333333,
    "WAIT_GROWTH_MAX": 0.9,
    "WAIT_RISE": 0.2,
    "DRAIN_ERRORS": 3.0,
    "DRAIN_SEEN_S": 10.0,
    "DRAIN_RATE_MIN": 0.02,
    "CV2_RANGE": (0.2, 20.0),
    "CALM_WINDOWS": 2.0,
    "DISPERSION_PRIOR": 6.0,
    "TREND_WINDOWS": (15.0, 9.0, 6.0),
    "TREND_POINTS": 8,
    "TREND_ERRORS": 4.0,
    "TREND_MOVED": 0.1,
    "RISE_MOVED": 0.2,
    "BEND_WINDOWS": 2.0,
    "BEND_FITS": 0.6,
    "TREND_DOUBT": 0.25,
    "TREND_FURTHER": 2.5,
    "TREND_LASTS": 2.0,
    "FALL_FLOOR": 0.5,
    "RATE_NOISE": (0.02, 0.3),
    "RATE_NOISE_UNKNOWN": 0.15,
    "WEEK_FITS": 0.2,
    "WEEK_NOISE": 0.1,
    "SLOW_NOISE": 0.1,
    "SLOWING_WINDOWS": (30.0, 22.0, 15.0, 9.0, 6.0),
    "SLOWING_LATE": 0.3333333333333333,
    "SLOWING_ERRORS": 2.0,
    "SLOWING_DOUBT": (0.5, 2.5),
    "SLOWING_LASTS": 2.0,
    "UNHELPED": 0.4,
    "STATS_WEIGHT": (0.3, 20.0),
    "STATS_BATCHES": 5,
    "SPREAD_RANGE": (0.02, 0.8),
    "SPREAD_MAX": 1.0,
    "REPLICA_ROWS": 0.5,
    "REPLICA_TAIL_MAX": 5.0,
    "OVERHEAD_MAX": (0.5, 5.0),
    "MANY_ROWS": 1.7,
    "COMES_AND_GOES": 0.2,
    "PHASE_MEANS": 0.58,
    "PHASE_SHARE_MAX": 0.9,
    "PHASE_UNKNOWN_S": 10.0,
    "EARLY_POINTS": 8,
    "PHASE_MIN": 0.15,
    "PHASE_MAX_S": 120.0,
    "PHASE_CROSSING": 0.3,
    "PHASE_PERIODS_S": (
        4.0,
        6.0,
        8.0,
        10.0,
        12.0,
        15.0,
        18.0,
        21.0,
        24.0,
        27.0,
        30.0,
        34.0,
        38.0,
        42.0,
        47.0,
        53.0,
        60.0,
        70.0,
        85.0,
        120.0,
    ),
    "PHASE_SHARES": (0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75),
    "PHASE_RATIOS": (1.2, 1.4, 1.65, 1.9, 2.2, 2.6, 3.0, 3.5, 4.1, 4.8, 5.6, 6.6, 8.0),
    "PHASE_FAST": (1.0, 1.2, 1.45, 1.75, 2.1, 2.5),
    "FAST_AS_BEFORE": 0.7,
    "PHASE_PLACES": 12,
    "PHASE_STRIDE": 0.25,
    "PHASE_POINTS": 24,
    "PHASE_REPLICAS": 4,
    "PHASE_BUSY": 0.7,
    "PHASE_NOISE": 0.06,
    "PHASE_CV2_NOISE": 0.25,
    "PHASE_CV2_HIDDEN": 0.75,
    "PERIODS_SEEN": 3.0,
    "PHASE_CV2_LEAST": 0.01,
    "MOVED": pytest.approx(math.log(1.15)),
    "CHAIN_POINTS": 8,
    "CHAIN_LAG": 0.25,
    "CHAIN_STRONG": 0.5,
    "STAGE_DOMINATES": 0.5,
    "SLOW_REPLICA": 1.3,
    "SOUND_REPLICA": 1.2,
    "BORDERS": 0.2,
    "WAIT_SHARE": (0.25, 1.5),
    "WAIT_BUSY": 0.75,
    "WAIT_FILL": 0.95,
    "NOISY": 0.12,
    "NOISY_TIMES": 2.0,
    "NOISY_BEFORE": 0.03,
    "NOISY_SPREAD": 0.5,
    "QUEUE_BATCHES": 0.5,
    "RELEASE_SEEN_STEPS": 2,
    "RELEASE_BEFORE_S": 3600.0,
    "RELEASE_POINTS": 8,
    "RELEASE_ROLLOUT_S": 900.0,
    "RELEASE_SLOWER": 1.1,
    "RELEASE_ERRORS": 0.005,
    "RELEASE_SURE": 0.995,
    "RELEASE_CARRIES": 0.95,
    "RELEASE_DOUBT": 0.12,
    "RELEASE_NARROW": 1.5,
    "RELEASE_QUANTILES": (0.05, 0.5, 0.95),
    "RELEASE_SCATTER": 3.0,
    "RELEASE_LASTING": 0.8,
    "SHARE_NOISE": 0.001,
    "LIMIT_SHARES": (1.0, 0.85, 0.7, 0.5, 0.35, 0.25),
    "REFUSING_NOISE": 0.02,
    "LIMIT_WINS": 1.2,
    "LIMIT_RATES": (0.95, 0.9, 0.8, 0.7),
    "RELEASE_RISK": 0.1,
    "WAITS": 1.0,
    "KV_FULL": 0.9,
    "PREEMPTS": 0.02,
    "AT_LIMIT": 0.9,
    "MORE_RUNNING": 1.15,
    "ITL_SPIKES": 3.0,
    "PREFILL_SHARE": 0.5,
    "HITS_LOST": 0.1,
    "UNANSWERED": 0.5,
    "DRAWS": 16,
    "FULL": 0.9,
    "SURPRISE": 0.4,
    "DILUTED_REPLICA": 1.3,
    "QUEUE_TIME_MAX_S": 600.0,
    "GAIN_PRIOR": (2.5, 0.4),
    "GAIN_FLOOR": 1.2,
    "GAIN_MEASURED_SD": 0.15,
    "GAIN_LEARNED_SD": 0.1,
    "UNMEASURED_SD": 0.3,
    "NIS_LIMIT": 6.63,
    "REGIME": 8,
    "MISFIT": 0.04,
    "BEYOND": 0.06,
    "GUESS": 0.25,
    "BATCH_NOISE": 0.05,
    "POINTS_MAX": 60.0,
    "STABLE": 0.985,
    "STEP_PRIOR": ((0.7, 0.02, 0.005, 4e-06), (0.5, 0.04, 0.012, 1.5e-05)),
    "STEP_NOISE": 0.05,
    "STEP_JITTER": 0.15,
    "STEP_GATE_FROM": 6.0,
    "STEP_REGIME": 16,
    "STEP_POINTS_MAX": 120.0,
    "NEVER_RESTS": 5.0,
    "BEYOND_PROMPT": 0.1,
    "EDGE_SHARES": (0.03, 0.07),
    "EDGE_RATIO": 2.0,
    "PREEMPTED": 0.02,
    "OVERHEAD_WEIGHT": 0.2,
    "WHOLE_PROMPT": 0.5,
    "QUEUED_GENERATIONS": 5,
    "QUEUED_REQUESTS": (40, 240),
    "SPARED_AT_ONCE": (0.7, 0.55),
    "SHARED_MAX": 0.99,
    "LENGTH_SPREAD": (0.02, 1.6),
    "LENGTH_P95": 2.0,
    "LENGTH_NOISE": 0.05,
    "HIT_MAX": 0.98,
    "KV_SEEN": 0.05,
    "BLOCK_TOKENS": 16,
    "TOKEN_DRAWS": 8,
    "TOKEN_REQUESTS": (100, 180),
    "RESTART_RISK": 0.05,
    "HEAL_RISK": 0.03,
    "HEAL_CARRIES": 0.95,
    "HEAL_MEMORY_S": 86_400.0,
    "WRONG_REQUESTS": 10.0,
    "WRONG_TIMES": 3.0,
    "SEQUENCE_CHOICES": 12,
    "STRIDES_MAX": 200_000,
    "SIMULATED_MAX_S": 900.0,
    "REPLICA_CHOICES": 10,
    "PAIRS": 28,
    "STAND_INS": 1,
    "PAIR_BATCHES": 3,
    "SHORT_WAIT": 0.05,
    "RISK": {
        "batch_size": 0.02,
        "smaller batch": 0.03,
        "replicas": 0.02,
        "precision": 0.15,
        "variant": 0.05,
        "admission": 0.03,
        "breaker": 0.03,
        "pair": 0.02,
    },
    "LEAST_CHANCE": 0.35,
    "LATE_CHANCE": 0.5,
    "LEAST_CARRIES": 0.05,
    "DEMOTED": 0.4,
    "PAIR_GAIN": 0.15,
    "RISKY": 0.1,
    "CHANCE_STEPS": 20,
    "UNSURE_STEPS": 50,
    "EFFECT_STEP_S": 30.0,
    "LATE_STEP_S": 300.0,
    "FREE_CHANCE": 0.7,
    "FREE": 5e-05,
    "SETTLE_MAX_S": 600.0,
    "PASSES_MEETS": 0.7,
    "PASSES_DRAIN_S": 120.0,
    "PASSES_P95": 0.7,
    "PASSES_DEPTH": 0.9,
    "PASSES_SLOW": 1.1,
    "LUCK_REQUESTS": 200.0,
    "LUCK_WINDOWS": 2.0,
    "CHANGED_WINDOWS": 10.0,
    "NARROWLY": 1.1,
    "NARROWLY_WINDOWS": 10.0,
    "OFF_MAX": math.log(2.0),
    "BRINGS": 0.95,
    "BRINGS_CHANCE": 0.15,
    "DRAIN_SLOW_SD": 0.2,
    "SEEN_ROOM": 1.18,
    "RETURN_STEPS": 9,
    "WORTH_A_LOSS": 0.5,
    "LEASE_RETURN": 0.7,
    "PLAYBOOK_RETURN": 0.6,
    "PEAK": 0.95,
    "SAVING_P95": 0.5,
    "SPARED_P95": 0.85,
    "SPARED_LOAD": 0.65,
    "SPARED_CARRIES": 0.95,
    "NOT_SPARED": ("stale_data", "errors"),
    "SETTLED_STEPS": 2,
    "RATE_ERROR": 0.03,
    "WORKED_PRIOR": (3.0, 1.0),
    "FADE": 0.98,
    "SCATTER": 0.1,
    "SCATTER_WEIGHT": 6.0,
    "TRIALS": 40,
    "WILD": 0.7,
    "GPU_RESTS": 0.5,
    "ALWAYS_COMPUTES": 0.8,
    "HARDLY_BATCHED": 1.5,
    "GPU_HOT_C": 83.0,
    "CACHE_MISSES": 0.1,
}


def numbers() -> dict[str, object]:
    return {name: value for name, value in vars(thresholds).items() if name.isupper()}


def test_every_number_is_what_was_measured():
    assert numbers() == FIXED


@pytest.mark.parametrize("name", sorted(FIXED))
def test_every_number_is_explained_below_it(name):
    body = ast.parse(SOURCE).body
    at = next(i for i, node in enumerate(body) if isinstance(node, ast.Assign) and node.targets[0].id == name)
    said = body[at + 1]
    assert isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant) and len(said.value.value) > 30


def test_every_number_is_used():
    used = "".join(path.read_text() for path in Path(thresholds.__file__).parent.rglob("*.py"))
    assert [name for name in FIXED if f"th.{name}" not in used] == []


def test_no_other_module_of_planning_hides_a_number_of_its_own():
    """Module constants are words, tables and the grids of the arithmetic; what steers a decision stands in one file."""
    allowed = {"_CV2_GRID", "_KAPPA", "_LOG_PRIOR", "_FAR", "_LEVELS", "WEEK_S"}
    allowed |= {"CLIP", "FORMAT"}  # what a trained policy's file rests on: moving them asks for a training
    allowed |= {"_SIZE", "_ROOTS", "_ZEROS", "_Z", "_EDGES", "_TAIL", "LUCK", "_JITTER"}
    found = []
    for path in sorted(Path(thresholds.__file__).parent.rglob("*.py")):
        if path.name in ("thresholds.py", "settings.py"):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                numeric = any(
                    isinstance(n, ast.Constant) and type(n.value) in (int, float) for n in ast.walk(node.value)
                )
                if numeric and node.targets[0].id not in allowed:
                    found.append(f"{path.name}: {node.targets[0].id}")
    assert found == []


def test_pairs_of_bounds_are_ordered():
    for name, value in numbers().items():
        if isinstance(value, tuple) and name.endswith(("RANGE", "NOISE", "DOUBT", "SHARE", "WEIGHT")):
            assert value[0] < value[1], name
    assert math.isclose(math.exp(thresholds.MOVED), 1.15)
