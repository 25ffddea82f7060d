"""Every number that steers a plan, with its unit and where it comes from. What a user may set is in settings.py.

"Development incidents" are the proving ground's generated incidents of the development seeds (benchmarks/control);
no figure that is published was measured on them. tests/tuning/planning/test_thresholds.py shows each number at work.
"""

from __future__ import annotations

import math

Z90 = 1.645
"""Standard normal quantile of both ends of a 90 % interval."""

# What counts as known ----------------------------------------------------------------------------------------------

LEVEL_POINTS = 3
"""Fewest samples whose median is a level and not luck."""
VARIATION_POINTS = 6
"""Fewest batch times whose variation says anything (relative error of a standard deviation of six: 30 %)."""
BASELINE_HISTORY_S = 6 * 3600.0
"""How far back the history is a baseline where the look-back does not reach before the onset: within a shift."""

# Arrivals ----------------------------------------------------------------------------------------------------------

MAY_QUEUE = 0.85
"""Busy share from which a queue may grow, so that answers are not arrivals; below it a queue is the batch's wait, where
it is told by the time that requests wait and not counted."""
SATURATED = 0.95
"""Busy share from which the rate of answers is the capacity, so that a shorter window of the queue is as exact."""
SATURATED_WINDOW = 1 / 3
"""That shorter window over the rate window."""
WAIT_GROWTH_MAX = 0.9
"""Highest growth of the wait (s per s) that the fluid relation is trusted with: arrivals of ten times the answers."""
WAIT_RISE = 0.2
"""Share of its highest value by which the wait must rise to count as growing."""
DRAIN_ERRORS = 3.0
"""Standard errors (of two Poisson streams) by which a queue must fall to tell the rate of arrivals."""
DRAIN_SEEN_S = 10.0
"""Seconds of counts from which the fall is taken (three counts at least): two of the demo's scrapes."""
DRAIN_RATE_MIN = 0.02
"""Least rate of arrivals, as a share of the capacity, that a falling queue is taken for."""
CV2_RANGE = (0.2, 20.0)
"""Squared variation of arrivals that the what-if is asked about: smoother and burstier than any trace we know."""
CALM_WINDOWS = 2.0
"""Rate windows before the onset up to which arrivals are those of the calm: a P95 breaks its limit after the load did,
and each count looks back one window."""
DISPERSION_PRIOR = 6.0
"""Degrees of freedom that Poisson arrivals are worth before counts of windows say how bursty they are: six windows more
or less, whose own relative error is 60 %."""

# Forecast ----------------------------------------------------------------------------------------------------------

TREND_WINDOWS = (15.0, 9.0, 6.0)
"""Rate windows over which a rise is looked for, longest first. A rate over one window shows a step as a ramp of one
window, so that over fewer than six of them a step passes for a trend."""
TREND_POINTS = 8
"""Fewest samples of a line with a standard error worth the name (six degrees of freedom)."""
TREND_ERRORS = 4.0
"""Standard errors from zero at which a slope counts: the window is chosen among several, so two are too few."""
TREND_MOVED = 0.1
"""Share of the level by which a trend must have moved the rate since the onset."""
RISE_MOVED = 0.2
"""The same where the rise is looked for before the onset as well."""
BEND_WINDOWS = 2.0
"""Rate windows that a rise which began after a level is old at least: a step is a ramp of one."""
BEND_FITS = 0.6
"""Sum of squares of a level with a bend over that of the best step below which it is a rise. Of 5,400 simulated series
that were level, had a step or came and went (noise of 1 to 10 % of a rate window), two passed for a rise. Of ramps by a
factor of 1.4 to 4 in 3 to 10 minutes, four rate windows old, 98 % did with 1 % of noise and windows of 60 s (78 % with
4 %), and 63 % with windows of 20 s."""
TREND_DOUBT = 0.25
"""Share of the extrapolated growth that is added to the uncertainty."""
TREND_FURTHER = 2.5
"""How many horizons the upper end of a trend looks ahead: a change should still do when the trend goes on."""
TREND_LASTS = 2.0
"""Times that the upper end of a trend goes on at most, of the time that it was seen to: as for a slowness."""
FALL_FLOOR = 0.5
"""Share of the present rate below which a fall is not followed."""
RATE_NOISE = (0.02, 0.3)
"""Bounds of the relative uncertainty of a level (below: the wave of any traffic; above: it is no level)."""
RATE_NOISE_UNKNOWN = 0.15
"""The same with fewer than three samples."""
WEEK_FITS = 0.2
"""Relative distance of this hour's rate to last week's within which last week says what comes next."""
WEEK_NOISE = 0.1
"""Least relative uncertainty of what last week says."""

# Speed -------------------------------------------------------------------------------------------------------------

SLOW_NOISE = 0.1
"""Relative departure of the batch times from the learned line that is no slowness (or two standard errors)."""
SLOWING_WINDOWS = (30.0, 22.0, 15.0, 9.0, 6.0)
"""Rate windows over which a slowness that grows is looked for, longest first: a leak or a hot chip takes minutes."""
SLOWING_LATE = 1 / 3
"""Share of the rise, at its end, that tells whether it goes on: its slope is at least this share of the whole's."""
SLOWING_ERRORS = 2.0
"""Standard errors of the learned line (at the rows seen) by which the slowness must have grown."""
SLOWING_DOUBT = (0.5, 2.5)
"""Horizons (5 % and 95 %) for which a slowness goes on growing: nobody knows when it ends."""
SLOWING_LASTS = 2.0
"""Times that a slowness goes on growing at most, of the time that it was seen to: nothing grows for ever."""
UNHELPED = 0.4
"""Share of the P95 predicted for a service that grew slower, left alone, which it reaches at least: on eleven
development incidents it reached 0.35 to 1.04 of it where the slowness was measured (its queue refuses at a limit)."""
STATS_WEIGHT = (0.3, 20.0)
"""Measurements that the batches of one size are worth in the line: least, and that of a size that had them all."""
STATS_BATCHES = 5
"""Fewest batches of one size whose variation counts."""
SPREAD_RANGE = (0.02, 0.8)
"""Coefficient of variation of single batches: the timer's noise, and what is no batch time any more."""
SPREAD_MAX = 1.0
"""The same with what comes and goes on top."""
REPLICA_ROWS = 0.5
"""Share of a batch's time that is taken to go with its rows when replicas with different batches are compared."""
REPLICA_TAIL_MAX = 5.0
"""Highest slowness that a replica's P95 alone is taken for."""
OVERHEAD_MAX = (0.5, 5.0)
"""Latency outside queue and batch at most: this share of a batch's time, plus so many ms."""
MANY_ROWS = 1.7
"""Rows computed over requests answered from which a request brings several rows; below it is measurement error."""
COMES_AND_GOES = 0.2
"""Variation of batch times on top of the usual from which phases are simulated and not a wider spread."""

PHASE_MEANS = 0.58
"""Variation of means over a rate window over that of single batches, where slow and fast phases last one rate window
each (a square wave averaged over half of its period is a triangle: 1 / sqrt(3)). Shorter phases show less."""
PHASE_SHARE_MAX = 0.9
"""Largest share of the computing that is taken to fall into slow phases: nine times as slow as the others."""
PHASE_UNKNOWN_S = 10.0
"""How long phases are taken to last where too little was seen to tell (the geometric mean of 4 s and 25 s)."""
EARLY_POINTS = 8
"""Fewest measurements of the first half of what was calm from which a line of its own is learned, to see whether the
second half is slower already."""
PHASE_MIN = 0.15
"""Shortest phase that is simulated, in rate windows."""
PHASE_MAX_S = 120.0
"""Longest phase: what is slow for longer is the present state, not something that comes and goes."""
PHASE_CROSSING = 0.3
"""Standard deviations beyond the mean that a batch time must reach to count as a change of phase."""
PHASE_PERIODS_S = (
    4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 18.0, 21.0, 24.0, 27.0, 30.0, 34.0, 38.0, 42.0, 47.0, 53.0, 60.0, 70.0,
    85.0, 120.0,
)  # fmt: skip
"""Periods of a neighbour that comes and goes that are weighed, each as likely as the next before anything was seen:
from what a batch hides to twice the minute that is looked back on, closer where its means tell them apart ..."""
PHASE_SHARES = (0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75)
"""... shares of the time that it is there ..."""
PHASE_RATIOS = (1.2, 1.4, 1.65, 1.9, 2.2, 2.6, 3.0, 3.5, 4.1, 4.8, 5.6, 6.6, 8.0)
"""... and how slow it makes a batch, in steps of the noise of a mean over a rate window."""
PHASE_FAST = (1.0, 1.2, 1.45, 1.75, 2.1, 2.5)
"""Batch times in between, over the learned line: another trouble may be there beside the neighbour ..."""
FAST_AS_BEFORE = 0.7
"""... as in a quarter of all incidents: how likely it is that in between all is as before."""
PHASE_PLACES = 12
"""Places of a period at which a series may begin: a twelfth of it is under the noise of what is averaged."""
PHASE_STRIDE = 0.25
"""Rate windows between the means that are looked at: closer ones tell hardly more ..."""
PHASE_POINTS = 24
"""... and how many, the newest: six rate windows, over which a neighbour's habits last."""
PHASE_REPLICAS = 4
"""Replicas whose means are looked at: each more tells less and takes as long."""
PHASE_BUSY = 0.7
"""Busy share that is taken where it is not exported: a service that broke its SLO hardly rests."""
PHASE_NOISE = 0.06
"""Relative error of a windowed mean over the line (`MISFIT`, `BATCH_NOISE`), beside the batches' own scatter."""
PHASE_CV2_NOISE = 0.25
"""Log error of the variation of some hundred single batches where a rate window holds many periods: of the spread and
the line beside it. It grows with the root of one more than the rate windows that a period lasts ..."""
PHASE_CV2_HIDDEN = 0.75
"""... and is this where less varies than would: where batches are not always full, those of slow phases are the larger
ones, and some of it lies between sizes (half; two thirds with 1.7 rows in between and 3.9 in slow phases)."""
PERIODS_SEEN = 3.0
"""Periods that a simulation must go through: fewer, and P95 is told by where it happens to begin."""
PHASE_CV2_LEAST = 0.01
"""Squared variation under which there is none to speak of."""

# Diagnosis ---------------------------------------------------------------------------------------------------------

CHAIN_POINTS = 8
"""Fewest points of two signals whose going together says anything: four on each side of a step."""
CHAIN_LAG = 0.25
"""The longest lag at which a signal is looked for behind another one, of the stretch that is looked at."""
CHAIN_STRONG = 0.5
"""Rank correlation from which a link of a declared chain is shown; below it only that there is none that is clear."""
STAGE_DOMINATES = 0.5
"""Share of a request's time from which a stage around the model is what its time goes into: more than all else."""
MOVED = math.log(1.15)
"""Growth (natural logarithm) of a factor of the load that is evidence: 15 %, about three standard errors."""
SLOW_REPLICA = 1.3
"""Batch time over the median replica's from which a replica is the slow one (one of 1.4 times shows 1.3 to 1.5) ..."""
SOUND_REPLICA = 1.2
"""... while the next slowest stays below this."""
WRONG_REQUESTS = 10.0
"""Failed requests of one replica from which it is called wrong: a few are anybody's."""
WRONG_TIMES = 3.0
"""How many times the share of its peers."""
BORDERS = 0.2
"""Share of recent P95 values over the SLO from which an incident is not over although the median is under it."""
WAIT_SHARE = (0.25, 1.5)
"""Mean wait over the batch timeout within which the timeout is what is waited for."""
WAIT_BUSY = 0.75
"""Busy share from which waiting is a queue and not the timeout."""
WAIT_FILL = 0.95
"""Fill from which no request waits for rows."""
NOISY = 0.12
"""Variation of batch times from which slowness comes and goes ..."""
NOISY_TIMES = 2.0
"""... if it is also so many times what it was before."""
NOISY_BEFORE = 0.03
"""What it was before where nobody knows."""
NOISY_SPREAD = 0.5
"""Share of the learned spread that counts as "before"."""
QUEUE_BATCHES = 0.5
"""Mean wait over one batch's time above which a queue stands: a resting server makes requests wait half a batch."""

# A release's blame --------------------------------------------------------------------------------------------------

RELEASE_SEEN_STEPS = 2
"""Steps by which a version may be seen later than what it does: a scrape, and the grid on which series are read."""
RELEASE_BEFORE_S = 3600.0
"""How far before a release the old version is looked at: its daily course would pass for a difference beyond that."""
RELEASE_POINTS = 8
"""Fewest points of the old version in the look-back; below, the coarser history is asked for it."""
RELEASE_ROLLOUT_S = 900.0
"""Longest rollout over which what a release moves is expected to begin: replicas are replaced one after the other."""
RELEASE_SLOWER = 1.1
"""Service time over the old version's from which a release is worse: two lines of one service differ by 6 % at most
(each deviates by `MISFIT`), so that this is more than their own misfit ..."""
RELEASE_ERRORS = 0.005
"""... share of requests, above the old version's, from which its errors are (the floor of a verdict's guard) ..."""
RELEASE_SURE = 0.995
"""... and how sure that has to be: of 200 releases that changed nothing at most one is blamed by each look."""
RELEASE_CARRIES = 0.95
"""Share of what was carried before (requests over the busy share) below which a service refuses nothing for want of
room: 5 % for the noise of both rates."""
RELEASE_DOUBT = 0.12
"""Relative doubt of the old version's line, at the sizes of now, up to which it tells: above it a factor of 1.5 could
not be told."""
RELEASE_NARROW = 1.5
"""Largest over smallest size up to which what they vary is taken for noise, which would flatten a line's slope."""
RELEASE_QUANTILES = (0.05, 0.5, 0.95)
"""Quantiles of the old version's P95 that are told as what a revert brings, at the level of all intervals."""
RELEASE_SCATTER = 3.0
"""Standard deviations of the calm scatter above which a point belongs to what the release moved ..."""
RELEASE_LASTING = 0.8
"""... and the share of such points in the stretch that lasts until now."""
SHARE_NOISE = 0.001
"""Scatter of a share (of errors, of right answers) that is assumed at least: a series of zeros proves nothing."""

# Diagnosis of language models ---------------------------------------------------------------------------------------

WAITS = 1.0
"""Requests waiting (median) from which a queue stands before an engine: below, they wait for the next iteration."""
KV_FULL = 0.9
"""Share of the KV cache from which what waits, waits for it. vLLM on two cores held 0.94 to 1.0 under preemption."""
PREEMPTS = 0.02
"""Preemptions a second from which the cache is full whatever its usage reads: more than one a minute."""
AT_LIMIT = 0.9
"""Running over the limit from which the limit is met: a mean over a window misses the moments between two requests."""
MORE_RUNNING = 1.15
"""Growth of concurrency, or of prompts, from which slower tokens are no sign of a slower engine (`MOVED`)."""
ITL_SPIKES = 3.0
"""P95 of the time between tokens over its median from which some iterations hold others' prompts."""
PREFILL_SHARE = 0.5
"""Share of the time to the first token that the prompt's own computing takes where prompts are what is narrow."""
HITS_LOST = 0.1
"""Fall of the prefix cache's hit rate that is news."""
UNANSWERED = 0.5
"""Share of requests without an answer from which nothing answers, where nothing ends either."""

# Prediction --------------------------------------------------------------------------------------------------------

DRAWS = 16
"""Draws of what is not known per option (sixteen equal steps of each quantile)."""
FULL = 0.9
"""Utilisation that an option with room stays below ..."""
SURPRISE = 0.4
"""... under this log scatter of what may come on top of all that is known: the next wave, a neighbour."""
DILUTED_REPLICA = 1.3
"""Batch time over the median replica's from which a replica is simulated apart."""
QUEUE_TIME_MAX_S = 600.0
"""A queue that takes longer to empty is no cure of this incident, unless there is none."""
GAIN_PRIOR = (2.5, 0.4)
"""INT8 speed-up where nobody measured it (median, log scatter): the lower third of 1.4 (depthwise convolutions on a
CPU) to 11 (wide layers)."""
GAIN_FLOOR = 1.2
"""The gate refuses less than its minimum, so the median lies above it by this."""
GAIN_MEASURED_SD = 0.15
"""Log scatter of a speed-up that the gate measured (offline, one batch size)."""
GAIN_LEARNED_SD = 0.1
"""Log scatter of a speed-up from live batches of both precisions."""
UNMEASURED_SD = 0.3
"""Log scatter of a gain from which it counts as a guess."""

# Latency model -----------------------------------------------------------------------------------------------------

NIS_LIMIT = 6.63
"""99 % quantile of chi-square with one degree of freedom: a measurement beyond it is refused."""
REGIME = 8
"""Refusals in a row that are no outliers: the service has changed (chance of eight: 1e-16)."""
MISFIT = 0.04
"""Relative deviation of real hardware (caches, kernel choice) from a straight line; more data do not shrink it."""
BEYOND = 0.06
"""Relative doubt that is added per doubling of the batch past what was seen."""
GUESS = 0.25
"""Relative standard deviation of a batch time, from the slope alone, from which it counts as not known."""
BATCH_NOISE = 0.05
"""Relative noise of one measured mean batch time."""
POINTS_MAX = 60.0
"""Measurements that the line remembers; older ones fade."""
STABLE = 0.985
"""Utilisation above which no steady state is simulated: the queue grows for as long as the load lasts."""

# Language models ---------------------------------------------------------------------------------------------------

STEP_PRIOR = ((0.7, 0.02, 0.005, 4e-6), (0.5, 0.04, 0.012, 1.5e-5))
"""Means and standard deviations of an iteration's base, and of what a running sequence, a prompt token and a cached
token add, as shares of the first iteration time seen. From a 28-million model on a CPU core (14.6 ms, 0.98, 0.36, 0) to
an 8-billion one on one GPU (7 ms, 0.05, 0.025, 4e-5): shares of 0.007 to 0.06, 0.003 to 0.025 and 0 to 6e-6, taken
three times as wide."""
STEP_NOISE = 0.05
"""Relative noise of one measured mean iteration time."""
STEP_JITTER = 0.15
"""Log scatter of single iterations around their time: of a real vLLM's tokens that came without somebody's prompt, on
two cores that other work shared, 80 % lay within 0.75 and 1.3 of their median, half of it because more or fewer ran."""
STEP_GATE_FROM = 6.0
"""Measurements from which the gate is asked: four unknowns and two to spare."""
STEP_REGIME = 16
"""Refusals in a row that are no outliers: eight windows, of two equations each."""
STEP_POINTS_MAX = 120.0
"""Measurements that the iteration time remembers; older ones fade."""
NEVER_RESTS = 5.0
"""Mean running sequences from which an engine never rests (Poisson: empty for 0.7 % of the time), so that iterations a
second tell their length."""
BEYOND_PROMPT = 0.1
"""Relative doubt of a prompt token's cost per doubling of the prompts' length past what was seen: on a CPU, prompts of
300 and 600 tokens took 1.15 and 1.25 times what a token of 116 had told."""
EDGE_SHARES = (0.03, 0.07)
"""Shares of gaps between tokens that hold somebody's prompt between which their P95 may be one without ..."""
EDGE_RATIO = 2.0
"""... where those with one take this many times as long."""
PREEMPTED = 0.02
"""Preemptions per finished request from which gaps between tokens and prefill times hold more than iterations."""
OVERHEAD_WEIGHT = 0.2
"""Weight of a newly seen overhead against the one known."""
QUEUED_GENERATIONS = 5
"""Full caches of sequences that are simulated to see what a replica answers that is never without a queue: the first
and the last do not count, and three give its rate to a few percent ..."""
QUEUED_REQUESTS = (40, 240)
"""... within these requests: fewer scatter, more cost as much as the look itself."""
WHOLE_PROMPT = 0.5
"""Share of an iteration's room up to which a prompt mostly goes through in one."""
SHARED_MAX = 0.99
"""Share of iterations with a new prompt in them above which the others cannot be told from the mean."""
LENGTH_SPREAD = (0.02, 1.6)
"""Log scatter of lengths: constant, and the widest that a mean and a 95th percentile can tell (their ratio has its
maximum at 1.645)."""
LENGTH_P95 = 2.0
"""95th percentile over the mean where only the mean is exported (log scatter 0.5)."""
LENGTH_NOISE = 0.05
"""Log scatter of the mean lengths to come around those seen."""
HIT_MAX = 0.98
"""Highest share of prefix hits: something is always computed."""
KV_SEEN = 0.05
"""Share of the cache in use from which its size is told by what sequences take of it."""
BLOCK_TOKENS = 16
"""Tokens of a cache block where the server does not tell."""
TOKEN_DRAWS = 8
"""Draws of what is not known per option of a language model ..."""
TOKEN_REQUESTS = (100, 180)
"""... and requests of each: those of the look at the change, within these bounds."""
RESTART_RISK = 0.05
"""How hard a limit of a language model's server is to undo: it restarts."""
SEQUENCE_CHOICES = 12
"""Values of max_num_seqs that are weighed at most."""
STRIDES_MAX = 200_000
"""Strides after which a simulation ends whatever is left: a queue that only preempts itself gets nowhere."""
SIMULATED_MAX_S = 900.0
"""Longest stretch of arrivals that is simulated."""

# Options -----------------------------------------------------------------------------------------------------------

REPLICA_CHOICES = 10
"""Numbers of replicas that are weighed at most, at equal ratios up to the bound."""
PAIRS = 28
"""Pairs that are simulated at most, cheapest first."""
STAND_INS = 1
"""Replicas that a pair may add at most where one is sick: one stands in for it until a person restarts it."""
PAIR_BATCHES = 3
"""Batch settings that are paired with another lever: those with the most room."""
SHORT_WAIT = 0.05
"""A batch timeout worth a look, as a share of the SLO."""
RISK = {
    "batch_size": 0.02,
    "smaller batch": 0.03,
    "replicas": 0.02,
    "precision": 0.15,
    "variant": 0.05,
    "admission": 0.03,
    "breaker": 0.03,
    "pair": 0.02,
}
"""How hard a step is to undo, 0..1: an order, not a probability. INT8 loads a model that nobody has served; a variant
was measured before it was listed; a pair has two ways to fail."""

LIMIT_SHARES = (1.0, 0.85, 0.7, 0.5, 0.35, 0.25)
"""Limits of a queue that are weighed, over the longest that meets the SLO by the middle of what is known: steps of
about the doubt of a batch's time (`MISFIT`, `BATCH_NOISE`, and the load's), down to a quarter, for where batch times
come and go the queue has to be short enough for the slow ones (on a busy machine the demo's were four times the mean,
and nothing down to half was predicted to do)."""
REFUSING_NOISE = 0.02
"""Least relative scatter of a minute's P95 where the queue is full: the steps of a histogram."""
LIMIT_WINS = 1.2
"""Answers in time per second with a limit over those without, from which requests may be refused for it: what
`verification.throughput_drop` can prove."""
LIMIT_RATES = (0.95, 0.9, 0.8, 0.7)
"""Rates that are weighed, over what is carried: from the highest whose queue settles within a look to one with a wave's
room."""

RELEASE_RISK = 0.1
"""How hard a reverted release is to undo: as any load of a model, and somebody waits for that version."""

HEAL_RISK = 0.03
"""The same for a replica's restart: nothing is left to undo, and what it carried is carried by the others meanwhile."""
HEAL_CARRIES = 0.95
"""Busy share of the others up to which they carry the load of the replica that restarts."""
HEAL_MEMORY_S = 86_400.0
"""Over how long restarts are counted against the lever's `per_day`."""

# Ranking -----------------------------------------------------------------------------------------------------------

LEAST_CHANCE = 0.35
"""Below this probability of meeting the SLO even the best option is not worth a change."""
LATE_CHANCE = 0.5
"""The same where the queue would take longer than `QUEUE_TIME_MAX_S` to empty: what shows late that it fails has to do
more probably than not."""
LEAST_CARRIES = 0.05
"""Below this probability of carrying the load, and of meeting the SLO, even a free try is none."""
DEMOTED = 0.4
"""Mean of "it worked" below which an option is barred for this cause on this service."""
PAIR_GAIN = 0.15
"""Probability by which a pair must beat the best single where nothing is sure."""
RISKY = 0.1
"""From this risk on (another precision) the whole interval must lie under the SLO, not only the prediction."""
CHANCE_STEPS = 20
"""Chances are compared in steps of 1/20: less is the simulation's own luck."""
UNSURE_STEPS = 50
"""The same where no option is sure, in steps of 1/50: options share their draws, so of two numbers of replicas the
larger is never the likelier by luck, and being unsure costs more than the price of one."""
EFFECT_STEP_S = 30.0
"""Times to take effect are compared in steps of this ..."""
LATE_STEP_S = 300.0
"""... and in steps of this where a queue that stands takes longer than `QUEUE_TIME_MAX_S`: both are rough then."""
FREE_CHANCE = 0.7
"""Chance of a free and reversible step from which it goes before one that costs: the paid one follows if it fails."""
WORTH_A_LOSS = 0.5
"""Probability of meeting the SLO from which answers may be a little worse for it: below, they would be worse for
nothing more often than not."""
FREE = 0.00005
"""Difference in cost per hour below which two options cost the same (prices are shown with two digits)."""

# Plan --------------------------------------------------------------------------------------------------------------

SETTLE_MAX_S = 600.0
"""Longest wait before a change is looked at."""
PASSES_MEETS = FREE_CHANCE
"""Probability of the SLO at the present setting from which a queue that drains needs no change: waiting for the next
look is the freest step of all ..."""
PASSES_DRAIN_S = 120.0
"""... if it is empty within this."""
PASSES_P95 = 0.7
"""P95 over its recent maximum below which it is falling ..."""
PASSES_DEPTH = 0.9
"""... and the queue's length over its maximum."""
PASSES_SLOW = 1.1
"""Slowness from which the present setting is not trusted to get by."""
LUCK_REQUESTS = 200.0
"""Requests in a rate window below which its P95 rests on fewer than ten of them, so that a few in a row are luck if
the model says that the present setting does (a second change at 1.8/s was made for that on a development one) ..."""
LUCK_WINDOWS = 2.0
"""... and for how many rate windows after the onset they may be."""
CHANGED_WINDOWS = 10.0
"""Rate windows after a change in which no second one is made on top if the setting is predicted to do under it: P95
comes and goes over its objective for that long where a neighbour or the bursts of a quiet service do (two development
incidents in which the first change was the right one)."""
NARROWLY = 1.1
"""Median of recent P95s over the objective up to which it is broken by no more than a P95 of some hundred requests
scatters (a tenth), so that a restart waits where the present setting is predicted to do ..."""
NARROWLY_WINDOWS = 10.0
"""... for so many rate windows after the onset."""
OFF_MAX = math.log(2.0)
"""Most by which what is seen of the present setting corrects a language model's predictions: the P95 that is seen lies
between two edges of a histogram, which are a factor of two and more apart."""
BRINGS = 0.95
"""Share of the present setting's P95 up to which an option brings something: under it lies the simulation's own luck
..."""
BRINGS_CHANCE = PAIR_GAIN
"""... and the chance to keep what is promised that it must add otherwise: of two options with the same middle over the
limit the less certain one is the likelier to keep it, which is no reason to make it."""
DRAIN_SLOW_SD = 0.2
"""Relative error of the slowness above which the capacity is too uncertain to read arrivals from a falling queue."""
LEASE_RETURN = 0.7
"""Share of the old setting's capacity, and of the rate that broke the SLO, below which the rate must fall for borrowed
replicas to go back: at the rate of the plan the old setting did not do, however much it could carry."""
SEEN_ROOM = 1.18
"""Factor on the highest load at which the SLO was seen to be kept: a lease ends early only below its limit by
safety.revert_hysteresis (0.15), which is for what is predicted. What was seen needs none on top."""
RETURN_STEPS = 9
"""Halvings by which the rate is found below which the whole model does again: to a fifth of a percent of the rate that
broke the SLO, far finer than the lease's hysteresis."""
PLAYBOOK_RETURN = 0.6
"""The same for the playbook, of the rate at the time of the plan: it knows no capacity."""
PEAK = 0.95
"""Quantile of the rates seen that replicas which stay must carry before one is given back."""
SAVING_P95 = 0.5
"""Share of the headroom under which P95 must stay after a replica was given back."""
SPARED_P95 = 0.85
"""P95 over its objective, expected with one replica fewer at the highest load seen, up to which a borrowed replica goes
back before its lease ends ..."""
SPARED_LOAD = 0.65
"""... if the rest are no busier than this then (with 0.8, a ramp of 2/s on a development incident outgrew what was
left: a second change) ..."""
SPARED_AT_ONCE = (0.7, 0.55)
"""The same two (P95 over its objective, busy share) for several replicas at once: the further a prediction reaches from
what was seen, the more room it is given."""
SPARED_CARRIES = 0.95
"""... and carry that load with this probability, whatever is not known of the batch times."""
NOT_SPARED = ("stale_data", "errors")
"""Causes under which nothing is given back: the numbers are old, or no ground to stand on."""
SETTLED_STEPS = 2
"""Steps between the last three samples: "since the onset" never means fewer."""

RATE_ERROR = 0.03
"""Relative error of a measured rate over a look of a minute or more."""

# What the ledger says ----------------------------------------------------------------------------------------------

WORKED_PRIOR = (3.0, 1.0)
"""Beta prior: as if a lever that the model recommends had worked three times of four before anything was seen."""
FADE = 0.98
"""What is left of an older trial's weight at each later one."""
SCATTER = 0.10
"""Log scatter of observed over predicted P95 where no change was seen yet."""
SCATTER_WEIGHT = 6.0
"""Trials that the prior of the scatter is worth."""
TRIALS = 40
"""Trials that bias and scatter are taken from at most."""
WILD = 0.7
"""Log error of a prediction above which it is cut: the load changed meanwhile."""

# Advice ------------------------------------------------------------------------------------------------------------

GPU_RESTS = 0.5
"""Share of time a GPU computes under which there is room beside a model that always does: a second instance at most
doubles it."""
ALWAYS_COMPUTES = 0.8
"""Busy share of a server from which it is its one instance, and not the traffic, that leaves a GPU idle."""
HARDLY_BATCHED = 1.5
"""Rows of a batch under which most batches are of a single row."""
GPU_HOT_C = 83.0
"""Degrees Celsius from which NVIDIA's data centre cards are near the limit at which they lower their clocks (85 to 90
by their data sheets)."""
CACHE_MISSES = 0.1
"""Share of prompt tokens found in the prefix cache under which it might as well not be there."""
