"""`python -m benchmarks.llm`: language models; generated incidents on a simulated server, predictions on a real one.

`--generated dev|report --count N --first K`: slotune's loop against HPA and KEDA on waiting requests, the saturation
policy of llm-d, Dynamo's SLA formulas, nothing and an oracle, on incidents of that stream of seeds; "report" writes
benchmarks/results/llm.json. `--real --python PATH`: a real vLLM (the Python of its environment) on this machine, whose
changes of rate, limits and lengths are predicted; writes benchmarks/results/llm_real.json. `--cost`: what predicting an
option costs.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.llm import cost, judge, real

RESULTS = Path(__file__).parent.parent / "results"
NAMES = ("slotune", "dynamo", "hpa", "keda", "wva", "nothing", "oracle")
COUNT = 100


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.llm", description=__doc__)
    parser.add_argument("--generated", choices=("dev", "report"), help="incidents of this stream")
    parser.add_argument("--count", type=int, default=COUNT, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kept", type=Path, help="rows that are done: read, passed over and added to")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no further incident or change after so long")
    parser.add_argument("--real", action="store_true", help="predictions on a real vLLM")
    parser.add_argument("--python", type=Path, help="the Python of vLLM's environment")
    parser.add_argument("--cost", action="store_true", help="CPU time of predicting one option")
    args = parser.parse_args()
    if args.real:
        if args.python is None:
            parser.error("--real needs --python: the Python of an environment with vLLM")
        folder = Path(tempfile.gettempdir()) / "slotune-llm"
        return real.main(args.python, folder, RESULTS / "llm_real.json", args.kept, args.minutes)
    if args.cost:
        print(json.dumps(cost.measure(), indent=1))
        return 0
    return _generated(args)


def _kept(path: Path | None) -> list[judge.Result]:
    if path is None or not path.exists():
        return []
    return [judge.Result(**json.loads(line)) for line in path.read_text().splitlines()]


def _quiet(number: int, stream: str, names: Sequence[str]) -> list[dict[str, object]]:
    logging.disable(logging.CRITICAL)
    return judge.one(stream, number, names)


def _generated(args: argparse.Namespace) -> int:
    stream = args.generated or "report"
    rows = _kept(args.kept)
    done = {row.scenario for row in rows}
    numbers = [n for n in range(args.first, args.first + args.count) if f"{stream} {n}" not in done]
    began = time.monotonic()
    with ProcessPoolExecutor(max_workers=args.jobs) as pool:
        work = partial(_quiet, stream=stream, names=NAMES)
        for k in range(0, len(numbers), args.jobs):
            if time.monotonic() - began > 60 * args.minutes:
                print(f"{len(numbers) - k} incidents are left", file=sys.stderr)
                break
            for found in pool.map(work, numbers[k : k + args.jobs]):
                rows += [judge.Result(**row) for row in found]  # type: ignore[arg-type]
                if args.kept is not None:
                    with args.kept.open("a") as file:
                        file.writelines(json.dumps(row) + "\n" for row in found)
                if stream == "dev":
                    # Whoever reads the failures of the report's stream begins to choose on it.
                    _show(rows[-len(NAMES) :])
    whole = judge.figures(rows)
    print(json.dumps(whole, indent=1))
    if stream == "report":
        command = f"python -m benchmarks.llm --generated report --count {len(rows) // len(NAMES)}"
        document = {"command": command, "simulated": True, "figures": whole}
        (RESULTS / "llm.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


def _show(rows: Sequence[judge.Result]) -> None:
    mine = next(row for row in rows if row.policy == "slotune")
    good = mine.first if mine.kind == "curable" else mine.held or mine.kind == "borderline"
    print(
        f"{'ok  ' if good else 'FAIL'} {mine.scenario}: {mine.trouble}, {mine.kind}; said {mine.cause}; {mine.texts}",
        flush=True,
    )
    print("     minutes:", ", ".join(f"{row.policy} {row.violation_min:.1f}" for row in rows))
    if not good:
        print(
            f"     {mine.reason}\n     oracle: {next(row.texts for row in rows if row.policy == 'oracle')}", flush=True
        )


if __name__ == "__main__":
    raise SystemExit(main())
