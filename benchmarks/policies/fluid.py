"""A fluid batching service, many at once: what the event simulator of the proving ground costs a second for, in a
thousandth of that. Backlogs are exact where the load exceeds what is carried; P95 below that is a closed form.

Two kinds of replicas: the first, which a fault may slow alone, and the others. Around them what slotune's loop does
with a plan: it waits for a change to settle, looks for 90 s, keeps it or takes it back, and asks again.
"""

from __future__ import annotations

import numpy as np

from benchmarks.policies.incidents import STEP_S, STEPS, Incidents
from tuning.planning.features import QUANTITIES, vector
from tuning.planning.moves import MOVES, targets

SWEEP = 6
"""Steps between two questions to the policy: slotune's sweep of 30 s."""
QUESTIONS = STEPS // SWEEP
WINDOW = 4
"""Steps of the rate window that every signal is seen through (20 s)."""
OPENS = 7
"""Steps over the SLO in a row until its rule speaks: 30 s between the first and the last."""
LOOK = 18
"""Steps that a change is looked at after it has settled (90 s)."""
IMPROVED = 0.8
"""P95 after a change over that before, below which it is kept though it does not suffice."""
INT8_S = 120.0

MINUTE, CHANGE, REPLICAS, CURED = -1.0, -0.25, -0.05, 1.0
"""The reward: of a minute over the SLO (or with 1 % of the requests failed), of a change, of a minute in which as many
replicas are added as there were, and of an incident that is over when it is judged. Fixed before the first training."""
NOISE = 0.08
"""Scatter (log) of what is measured."""
LINE_NOISE = 0.4
"""Scatter (log) of the learned line's slope."""


class Fluid:
    """Lanes of services from the onset to the end, 30 s a step. `seen()` before, `step(moves)` after each question."""

    def __init__(self, incidents: Incidents, seed: int) -> None:
        self.i, self.n = incidents, incidents.count
        self.rng = np.random.default_rng(seed)
        n = self.n
        self.at = 0
        self.batch, self.timeout = incidents.batch.copy(), incidents.timeout_ms.copy()
        self.desired = incidents.replicas.copy()
        self.running = incidents.replicas.copy()
        self.coming = np.full(n, np.inf)
        self.int8 = incidents.int8.copy()
        self.int8_from = np.full(n, np.inf)
        self.queue = np.zeros((2, n))
        self.p95 = np.zeros((WINDOW, n))
        self.failed = np.zeros((WINDOW, n))
        self.over = np.zeros(n)
        self.opened = np.zeros(n, bool)
        self.onset = np.zeros(n)
        self.busy_until = np.zeros(n)
        self.judge_at = np.full(n, -1)
        self.before = np.zeros(n)
        self.seen_after: np.ndarray = np.zeros(n)
        self.undo = np.zeros((3, n))
        self.moved = np.zeros(n, int)
        self.tried = np.zeros((3, n))
        self.doubt = np.exp(LINE_NOISE * self.rng.standard_normal(n))
        self.late = np.zeros(n)
        self.tail = np.zeros(n)
        self.minutes = np.zeros(n)
        self.added = np.zeros(n)
        self.changes = np.zeros(n)
        for _ in range(SWEEP):
            self._advance()

    # What a policy is asked ------------------------------------------------------------------------------------

    def asked(self) -> np.ndarray:
        """Which lanes have an open incident and no change under way, shape (n,)."""
        return np.asarray(self.opened & (self.busy_until <= self.at))

    def seen(self) -> dict[str, np.ndarray]:
        """The quantities of `features`, as a planner would derive them, with the scatter of what is measured."""
        i, k = self.i, min(self.at, STEPS - 1)
        rate, before = self._noisy(i.rate[:, k]), i.rate[:, max(0, k - 12)]
        moved = (i.rate[:, k] - before) / 60.0
        first, rest = self._slow(k)
        slow = np.where(self.running > 1, rest, first)
        past = np.where(self.running > 1, i.slow_rest[:, max(0, k - 12)], i.slow_first[:, max(0, k - 12)])
        gain = self._gain()
        rows = self._rows(rate / self.running, slow)
        alpha, beta = self._line(gain)
        busy = np.minimum(1.0, self._load(slow))
        total = np.maximum(self._observed(), 1e-9)
        one = np.ones(self.n)
        return {
            "p95_ms": self._noisy(total),
            "limit_ms": i.slo_ms,
            "error_rate": self.failed.mean(axis=0),
            "arrivals": rate,
            "base_qps": self._noisy(i.qps),
            "slope": np.where(np.abs(moved) * 60 > 0.1 * rate, moved, 0.0),
            "slow": self._noisy(slow * i.gain ** (i.int8 - self.int8)),
            "slower_per_min": np.where(np.abs(slow - past) > 0.05, slow - past, 0.0),
            "busy": busy,
            "fill": np.minimum(1.0, rows / self.batch),
            "queue_share": np.clip(1 - self._took(rows, slow) / total, 0, 1),
            "alpha_ms": alpha,
            "beta_ms": beta,
            "batch": self.batch,
            "batch_max": i.batch_max,
            "timeout_ms": self.timeout,
            "timeout_min_ms": 0.0 * one,
            "replicas": self.running,
            "replicas_max": np.maximum(i.replicas_max - i.lost[:, k], self.running),
            "base_replicas": i.replicas,
            "slowest": np.where(self.running > 1, np.maximum(1.0, first / rest), 1.0),
            "int8": i.precision * (1 - self.int8) * np.isinf(self.int8_from),
            "backlog": self.queue[0] + self.queue[1] * np.maximum(self.running - 1, 0),
            "variation": np.where(np.isclose(i.peak_rest[:, k], slow), 0.0, np.abs(i.peak_rest[:, k] / slow - 1)),
            "age_s": (self.at - self.onset) * STEP_S,
            "cv2": i.cv2,
            "tried_batch_size": self.tried[0],
            "tried_replicas": self.tried[1],
            "tried_precision": self.tried[2],
        }

    def question(self) -> tuple[np.ndarray, np.ndarray]:
        """(features, open moves) of every lane; a lane that is not asked may only hold."""
        seen = self.seen()
        assert set(seen) == set(QUANTITIES)
        free = targets(seen).open
        free[~self.asked(), 1:] = False
        return vector(seen), free

    def step(self, moves: np.ndarray) -> np.ndarray:
        """Make the moves and go on for 30 s; the reward of each lane."""
        late, added, changes = self.minutes.copy(), self.added.copy(), self.changes.copy()
        self._make(moves)
        for _ in range(SWEEP):
            self._advance()
        reward = MINUTE * (self.minutes - late) + REPLICAS * (self.added - added) + CHANGE * (self.changes - changes)
        return np.asarray(reward + CURED * self.cured() if self.done else reward)

    @property
    def done(self) -> bool:
        return self.at + SWEEP > STEPS

    def cured(self) -> np.ndarray:
        """Which lanes kept their SLO in 9 of 10 of the last 150 s before they are judged, shape (n,)."""
        return np.asarray(self.tail <= 3)

    # The loop ---------------------------------------------------------------------------------------------------

    def _make(self, moves: np.ndarray) -> None:
        """Set what the moves of the asked lanes lead to."""
        found = targets(self.seen())
        lanes = np.flatnonzero(self.asked() & (moves > 0) & found.open[np.arange(self.n), moves])
        if not lanes.size:
            return
        chosen = moves[lanes]
        self.undo[:, lanes] = self.batch[lanes], self.timeout[lanes], self.desired[lanes]
        self.before[lanes] = self._observed()[lanes]
        more = found.replicas[lanes, chosen] > self.running[lanes]
        faster = found.int8[lanes, chosen] > 0
        self.batch[lanes] = found.batch[lanes, chosen]
        self.timeout[lanes] = found.timeout_ms[lanes, chosen]
        rises = np.where(more, found.replicas[lanes, chosen] - self.running[lanes], 0.0)
        self.desired[lanes] += rises
        start = np.ceil(self.i.start_s[lanes] / STEP_S)
        self.coming[lanes] = np.where(more, self.at + start, self.coming[lanes])
        self.int8_from[lanes] = np.where(faster, self.at + INT8_S / STEP_S, self.int8_from[lanes])
        delay = np.maximum(np.where(more, start, 1), np.where(faster, INT8_S / STEP_S, 1))
        self.judge_at[lanes] = self.at + delay + WINDOW + LOOK
        self.busy_until[lanes] = self.judge_at[lanes]
        self.seen_after[lanes] = 0.0
        self.moved[lanes] = chosen
        self.changes[lanes] += 1

    def _judge(self) -> None:
        """Keep or take back the changes whose look is over."""
        due = np.flatnonzero(self.judge_at == self.at)
        if not due.size:
            return
        after = self.seen_after[due] / LOOK
        good = (after <= self.i.slo_ms[due]) | (after < IMPROVED * self.before[due])
        bad = due[~good]
        self.batch[bad], self.timeout[bad], self.desired[bad] = self.undo[:, bad]
        self.running[bad] = np.maximum(1.0, self.desired[bad] - self._lost()[bad])
        levers = [MOVES[k].levers for k in self.moved[bad]]
        # INT8 that did not help is taken back as well: it is served from the moment of the change until then.
        back = bad[np.array(["precision" in names for names in levers], dtype=bool)] if bad.size else bad
        self.int8[back], self.int8_from[back] = self.i.int8[back], np.inf
        for lane, names in zip(bad, levers, strict=True):
            self.tried[:, lane] = np.maximum(self.tried[:, lane], [n in names for n in _LEVERS])
        self.busy_until[bad] = self.at + WINDOW + 1
        self.judge_at[due] = -1

    # The service ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        i, k = self.i, min(self.at, STEPS - 1)
        arrived = self.coming <= self.at
        self.coming[arrived] = np.inf
        starting = np.isfinite(self.coming)
        self.running = np.where(starting, np.minimum(self.running, self.desired), np.maximum(1, self.desired))
        self.running = np.maximum(1.0, np.where(starting, np.minimum(self.running, self.desired - self._lost()),
                                                self.running - self._lost()))  # fmt: skip
        self.int8 = np.where(self.int8_from <= self.at, 1.0, self.int8)
        each = i.rate[:, k] / self.running
        slow = np.array(self._slow(k)) / self._gain()
        peak = np.array([i.peak_first[:, k], i.peak_rest[:, k]]) / self._gain()
        full = self._took(self.batch, 1.0)
        carried = self.batch / (full / 1e3) / slow
        grown = self.queue + (each - carried) * STEP_S
        refused = np.maximum(0.0, grown - i.queue_limit)
        self.queue = np.clip(grown, 0.0, i.queue_limit)
        alone, luck = np.array([self._steady(each, one) for one in peak]).swapaxes(0, 1)
        # Nobody waits longer than a full queue takes: what comes on top is refused.
        both = alone + 1e3 * np.minimum(luck / 1e3 + self.queue / carried, i.queue_limit / carried)
        share = np.where(self.running > 1, 1 / self.running, 1.0)
        rest = np.where(self.running > 1, both[1], both[0])
        worse = np.clip(1.0 - (0.05 * self.running) ** 0.7, 0.0, 1.0)
        p95 = np.where(both[0] > rest, rest + (both[0] - rest) * np.where(self.running > 1, worse, 1.0), rest)
        lost = share * refused[0] + (1 - share) * refused[1]
        self.p95[self.at % WINDOW] = p95 + i.overhead_ms
        self.failed[self.at % WINDOW] = np.clip(lost / np.maximum(each * STEP_S, 1e-9), 0.0, 1.0)
        self._count(k)
        self.at += 1
        self._judge()

    def _count(self, k: int) -> None:
        """What the step counts for: the SLO's rule, the look, minutes and replicas."""
        i, shown = self.i, self._observed()
        late = (shown > i.slo_ms) | (self.failed.mean(axis=0) > 0.01)
        self.over = np.where(late, self.over + 1, 0.0)
        opens = (self.over >= OPENS) & ~self.opened
        self.onset = np.where(opens, self.at, self.onset)
        self.opened |= opens
        closed = self.opened & ~late & (self.busy_until <= self.at) & (self.over == 0)
        self.opened &= ~closed
        self.tried[:, closed] = 0.0
        looking = (self.judge_at >= 0) & (self.at >= self.judge_at - LOOK)
        self.seen_after += np.where(looking, np.minimum(shown, 1e6), 0.0)
        now = self.p95[self.at % WINDOW] > i.slo_ms
        self.minutes += np.where(now | (self.failed[self.at % WINDOW] > 0.01), STEP_S / 60, 0.0)
        self.added += np.maximum(0.0, self.desired - i.replicas) / i.replicas * STEP_S / 60
        self.tail += now & (k >= i.judged - 30) & (k < i.judged)

    def _steady(self, each: np.ndarray, slow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P95 (ms) without a standing backlog: of batch wait and batch, and of the batches that queue by luck. each:
        requests/s of a replica.

        A batch that is under way is waited for, evenly spread; batches that queue have an exponential tail whose mean
        is Kingman's (1961) with the variation of the arrivals that a batch takes together.
        """
        i = self.i
        rows = self._rows(each, slow)
        took, full = self._took(rows, slow), self._took(self.batch, slow)
        load = np.minimum(0.97, each * full / 1e3 / self.batch)
        busy = np.minimum(1.0, each * took / 1e3 / rows)
        cv2 = 1 + (i.cv2 - 1) / self.running
        kingman = full * load * (cv2 / self.batch + i.spread**2) / 2 / (1 - load)
        filling = np.where(self.batch > 1, np.minimum(self.timeout, 1e3 * (self.batch - 1) / np.maximum(each, 1e-9)), 0)
        waits = np.maximum(0.95 * took * np.minimum(1.0, busy / 0.5), filling * (1 - busy**2))
        return took * (1 + i.spread) + waits, 3.0 * kingman

    def _rows(self, each: np.ndarray, slow: np.ndarray) -> np.ndarray:
        """Rows of a batch: what comes while one is computed, or within the batch wait."""
        rows = np.ones(self.n)
        for _ in range(6):
            rows = np.clip(each * np.maximum(self._took(rows, slow), self.timeout) / 1e3, 1.0, self.batch)
        return rows

    def _took(self, rows: np.ndarray, slow: np.ndarray | float) -> np.ndarray:
        bend = 1 - self.i.curve * np.minimum(1.0, (rows - 1) / 31)
        return np.asarray((self.i.alpha_ms + self.i.beta_ms * rows * bend) * slow)

    def _load(self, slow: np.ndarray) -> np.ndarray:
        k = min(self.at, STEPS - 1)
        return np.asarray(
            self.i.rate[:, k] / self.running * self._took(self.batch, slow / self._gain()) / 1e3 / self.batch
        )

    def _line(self, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The line as it was learned in the calm (of the precision that served then): right where batches were, and
        of a doubtful slope."""
        i = self.i
        calm = i.gain**i.int8
        at = np.maximum(1.0, self._rows(i.qps / i.replicas, 1 / calm))
        whole = self._took(at, 1.0) / calm
        beta = np.minimum(i.beta_ms / calm * self.doubt, whole / at)
        return whole - beta * at, beta

    def _gain(self) -> np.ndarray:
        return np.asarray(self.i.gain**self.int8)

    def _slow(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.i.slow_first[:, k], self.i.slow_rest[:, k]

    def _lost(self) -> np.ndarray:
        return np.asarray(self.i.lost[:, min(self.at, STEPS - 1)])

    def _observed(self) -> np.ndarray:
        """P95 as exported: over the rate window the slowest step shows."""
        return np.asarray(self.p95.max(axis=0))

    def _noisy(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values * np.exp(NOISE * self.rng.standard_normal(self.n)))


_LEVERS = ("batch_size", "replicas", "precision")
