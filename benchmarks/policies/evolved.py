"""Evolution: CMA-ES (Hansen 2016, by pymoo) searches the weights of a linear policy in the fluid service.

A generation's policies meet the same incidents with the same luck, all at once: one lane for each of them.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from pymoo.algorithms.soo.nonconvex.cmaes import CMAES
from pymoo.core.evaluator import Evaluator
from pymoo.core.problem import Problem
from pymoo.problems.static import StaticProblem

from benchmarks.policies import evaluate
from benchmarks.policies.fluid import Fluid
from benchmarks.policies.incidents import Incidents
from tuning.planning.features import FEATURES
from tuning.planning.moves import MOVES

PARENTS, INCIDENTS = 32, 64
"""Policies of a generation, and incidents that each of them meets."""
SIGMA, BOUND = 0.15, 4.0
"""First step of the search, and how large a weight may become."""
SIZE = len(MOVES) * (len(FEATURES) + 1)

Layers = list[tuple[np.ndarray, np.ndarray]]


def layers_of(weights: np.ndarray) -> Layers:
    """One layer: a score for each move, linear in the features."""
    table = weights.reshape(len(MOVES), len(FEATURES) + 1)
    return [(table[:, :-1], table[:, -1])]


def fitness(population: np.ndarray, incidents: Incidents, seed: int) -> np.ndarray:
    """Mean reward of each policy, shape (policies,). population: (policies, SIZE)."""
    count, each = len(population), incidents.count
    world = Fluid(incidents.take(np.tile(np.arange(each), count)), seed)
    tables = population.reshape(count, len(MOVES), len(FEATURES) + 1)
    total = np.zeros(count * each)
    while not world.done:
        inputs, free = world.question()
        scores = np.einsum("pmf,pif->pim", tables[:, :, :-1], inputs.reshape(count, each, -1)) + tables[:, None, :, -1]
        total += world.step(evaluate.best_open(scores.reshape(count * each, -1), free))
    return np.asarray(total.reshape(count, each).mean(axis=1))


def train(
    train_on: Incidents, check_on: Incidents, *, generations: int, limit_s: float, kept: Path, seed: int = 1
) -> tuple[Layers | None, int, dict[str, float]]:
    """(layers that did best on `check_on`, generations done, their figures there); None as layers where `limit_s` of
    CPU time was over first. The best so far is kept in the folder `kept`; a later call goes on from the search's
    middle."""
    began = time.process_time()
    done, middle, sigma, best, figures = _taken_up(kept)
    problem = Problem(n_var=SIZE, n_obj=1, xl=-BOUND, xu=BOUND)
    search = CMAES(x0=middle, sigma=sigma / (2 * BOUND), restarts=0, popsize=PARENTS, CMA_diagonal=True, tolfun=0,
                   tolx=0, tolfunhist=0, tolstagnation=10**9)  # fmt: skip
    search.setup(problem, termination=("n_gen", generations - done + 1), seed=seed + done)
    rng = np.random.default_rng([seed, done])
    while done < generations:
        if time.process_time() - began > limit_s:
            return None, done, {}
        population = search.ask()
        weights = population.get("X")
        rows = rng.choice(train_on.count, INCIDENTS, replace=False)
        reached = fitness(weights, train_on.take(rows), int(rng.integers(2**31)))
        Evaluator().eval(StaticProblem(problem, F=-reached[:, None]), population)
        search.tell(infills=population)
        done += 1
        if done % 10 and done < generations:
            continue
        order = np.argsort(-reached)[: PARENTS // 4]
        for one in (weights[order].mean(axis=0), weights[order[0]]):
            found = evaluate.run(check_on, _chooses(one), seed=7)
            if figures is None or found["reward"] > figures["reward"]:
                best, figures = one, found
        middle = weights[order].mean(axis=0)
        _keep(kept, done, middle, float(weights.std(axis=0).mean()), best, figures or {})
        print(done, round(float(reached.mean()), 3), figures, f"{time.process_time() - began:.0f} s of CPU", flush=True)
    assert figures is not None
    return layers_of(best), done, figures


def _chooses(weights: np.ndarray) -> evaluate.Chooses:
    ((table, bias),) = layers_of(weights)
    return lambda inputs, free: evaluate.best_open(inputs @ table.T + bias, free)


def _keep(kept: Path, done: int, middle: np.ndarray, sigma: float, best: np.ndarray, figures: dict[str, float]) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    np.savez(kept / "evolved.npz", done=done, middle=middle, sigma=sigma, best=best, names=list(figures),
             figures=list(figures.values()))  # fmt: skip


def _taken_up(kept: Path) -> tuple[int, np.ndarray, float, np.ndarray, dict[str, float] | None]:
    path = kept / "evolved.npz"
    if not path.exists():
        return 0, np.zeros(SIZE), SIGMA, np.zeros(SIZE), None
    with np.load(path) as found:
        figures = dict(zip(found["names"].tolist(), found["figures"].tolist(), strict=True))
        return int(found["done"]), found["middle"], float(found["sigma"]), found["best"], figures
