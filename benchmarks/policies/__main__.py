"""`python -m benchmarks.policies`: trains the learned planners and writes their weights (`make train-policies`).

Needs the environment that scripts/policies makes (PyTorch, stable-baselines3, pymoo). `--only ppo|evolved` trains one;
`--minutes N` stops after so much CPU time, and the same command goes on from there; `--smoke` trains a few steps of
each and writes nothing where slotune looks.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np

from benchmarks.policies import evaluate
from benchmarks.policies.incidents import CHECK, TRAIN, Incidents, table
from benchmarks.policies.write import write
from tuning.planning.weights_file import FOLDER

KEPT = Path(__file__).parents[2] / "build" / "policies"
STEPS, GENERATIONS = 500_000, 100
"""Of a whole training: PPO's steps (a fifth of them are questions), and generations of the search."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policies", description=__doc__)
    parser.add_argument("--only", choices=("evolved", "ppo"), help="train this one")
    parser.add_argument("--minutes", type=float, default=math.inf, help="CPU minutes after which to stop")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the weights")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a few incidents, into --out")
    args = parser.parse_args()
    if args.smoke:
        return _smoke(args.out)
    train_on, check_on = table(*TRAIN, KEPT), table(*CHECK, KEPT)
    for name in [args.only] if args.only else ["evolved", "ppo"]:
        if not _train(
            name, train_on, check_on, STEPS if name == "ppo" else GENERATIONS, 60 * args.minutes, args.out, KEPT
        ):
            print(f"{name}: not done yet; run the same command again for the rest")
            return 3
    for name, chooses in (("nothing", evaluate.hold), ("random", evaluate.at_random(1))):
        print(name, evaluate.run(check_on, chooses, seed=7))
    return 0


def _smoke(out: Path) -> int:
    few = table(TRAIN[0], 12)
    for name, amount in (("evolved", 1), ("ppo", 1)):
        _train(name, few.take(_again(few)), few, amount, math.inf, out, out / "kept")
    return 0


def _again(incidents: Incidents) -> np.ndarray:
    """Rows enough for a generation of the search."""
    return np.arange(64) % incidents.count


def _train(
    name: str, train_on: Incidents, check_on: Incidents, amount: int, limit_s: float, out: Path, kept: Path
) -> bool:
    """Whether it was trained to its end, and its weights written."""
    began = time.process_time()
    if name == "ppo":
        from benchmarks.policies import ppo

        layers, done, figures = ppo.train(train_on, check_on, steps=amount, limit_s=limit_s, kept=kept)
    else:
        from benchmarks.policies import evolved

        layers, done, figures = evolved.train(train_on, check_on, generations=amount, limit_s=limit_s, kept=kept)
    if layers is None:
        return False
    unit = "steps" if name == "ppo" else "generations"
    told = f"{done} {unit} on {train_on.count} drawn development incidents"
    trained = {"told": told, "check": figures, "check_incidents": check_on.count}
    write(out / f"{name}.json", name, layers, trained)
    print(f"{name}: {told}; {figures} on {check_on.count} others; {time.process_time() - began:.0f} s of CPU now")
    return True


if __name__ == "__main__":
    raise SystemExit(main())
