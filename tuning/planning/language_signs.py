"""Signs of what ails a server of a language model: its share of the one table of causes in `diagnosis`.

What a request costs the engine is its prompt (computed in chunks beside the others' tokens) and its answer (one token
an iteration, shared by all that run). More requests, longer prompts and longer answers are factors of one load, so
their logarithms compare; a longer prompt weighs as much as prompts weigh in the work.
"""

from __future__ import annotations

import math

from detection.signals import shown
from tuning.formats import ms
from tuning.planning import thresholds as th
from tuning.planning.facts import Facts, Sign, when
from tuning.planning.language import LanguageReading


def _of(f: Facts) -> LanguageReading:
    return f.language or LanguageReading()


# An engine that answers nobody ----------------------------------------------------------------------------------------


def _stalled(f: Facts) -> bool:
    """Requests come and nothing ends: no tokens, or answers that no finished request stands behind."""
    now = f.language
    if now is None or (now.qps or 0.0) > 0:
        return False
    stands = now.steps_per_s == 0 and ((now.running or 0.0) > 0 or (now.queue_depth or 0.0) > 0)
    return stands or (now.unanswered_rate or 0.0) >= th.UNANSWERED


def _stalled_text(f: Facts) -> tuple[str, ...]:
    now = _of(f)
    if (now.running or 0.0) > 0 or (now.queue_depth or 0.0) > 0:
        held = f"{now.running or 0:.0f} requests run and {now.queue_depth or 0:.0f} wait"
        return (f"the engine makes no iteration while {held}: it hangs or is paused, restart it",)
    lost = f"{now.unanswered_rate or 0:.0%} of the requests that were taken ended without an answer"
    return (f"{lost}, while the engine shows neither running nor waiting ones: it hangs or is paused, restart it",)


STALLED = Sign("engine_stalled", when(_stalled), _stalled_text)

# What moved -----------------------------------------------------------------------------------------------------------


def _prompt_share(f: Facts) -> float:
    """Share of the engine's work that prompts were, 0..1: a prompt is computed for its request alone, an answer's
    iterations are shared by all that run. Half where nothing tells."""
    calm = f.calm
    if calm.prefill_ms is None or calm.decode_ms is None or calm.running is None:
        return 0.5
    decode = calm.decode_ms / max(1.0, calm.running)
    return calm.prefill_ms / (calm.prefill_ms + decode) if calm.prefill_ms + decode > 0 else 0.5


def _longer(now: float | None, before: float | None, weight: float) -> float | None:
    if now is None or not before or f"{now:g}" == "0":
        return None
    return math.log(max(1e-3, 1 + weight * (now / before - 1)))


def _prompts(f: Facts) -> float | None:
    return _longer(_of(f).prompt_tokens, f.calm.prompt_tokens, _prompt_share(f))


def _outputs(f: Facts) -> float | None:
    return _longer(_of(f).output_tokens, f.calm.output_tokens, 1 - _prompt_share(f))


def _prefix(f: Facts) -> float | None:
    now, before = _of(f).prefix_hit_rate, f.calm.prefix_hit_rate
    if now is None or before is None or before - now < th.HITS_LOST:
        return None
    return _longer(1 - now, 1 - before, _prompt_share(f))


def _prefix_text(f: Facts) -> tuple[str, ...]:
    now, before = (shown("prefix_hit_rate", side.prefix_hit_rate or 0.0) for side in (_of(f), f.calm))
    return (f"{now} of the prompt tokens are found in the prefix cache instead of {before}",)


def _slower(f: Facts) -> float | None:
    """From the engine's model of its iterations; without one, from tokens that take longer at no more concurrency."""
    if f.language is None:
        return None
    slow = f.situation.slow
    if slow is not None:
        return math.log(slow) if slow > 1 + 2 * f.situation.slow_sd else None
    now, calm = f.language, f.calm
    if not (now.itl_ms and calm.itl_ms and now.running and calm.running):
        return None
    grew = now.running > th.MORE_RUNNING * max(1.0, calm.running)
    mixed = now.prompt_tokens and calm.prompt_tokens and now.prompt_tokens > th.MORE_RUNNING * calm.prompt_tokens
    return None if grew or mixed else math.log(now.itl_ms / calm.itl_ms)


def _slower_text(f: Facts) -> tuple[str, ...]:
    if f.situation.slow is not None:
        return (f"an iteration of the same size takes {f.situation.slow:.1f} times as long",)
    now, calm = _of(f), f.calm
    return (f"a token takes {ms(now.itl_ms)} instead of {ms(calm.itl_ms)} with no more requests running",)


def _fewer_seats(f: Facts) -> float | None:
    """More ran before than the limit lets run now: by how much it holds back, whatever came on top."""
    seats, before = _of(f).max_num_seqs, f.calm.running
    return math.log(before / seats) if seats and before and _at_limit(f) else None


def _fewer_seats_text(f: Facts) -> tuple[str, ...]:
    return tuple(f"{text}, where {f.calm.running or 0:.0f} ran before" for text in _at_limit_text(f))


def _grew(name: str, now: float | None, before: float | None) -> tuple[str, ...]:
    return (f"{name} of {now or 0:,.0f} tokens instead of {before or 0:,.0f} (x{(now or 0) / (before or 1):.1f})",)


# What the present state says ------------------------------------------------------------------------------------------


def _kv_full(f: Facts) -> bool:
    now = _of(f)
    if (now.preemptions_per_s or 0.0) >= th.PREEMPTS:
        return True
    return (now.kv_usage or 0.0) >= th.KV_FULL and f.waiting


def _kv_text(f: Facts) -> tuple[str, ...]:
    now = _of(f)
    usage = f"the KV cache is {now.kv_usage:.0%} full" if now.kv_usage is not None else "requests are preempted"
    thrown = f", {60 * now.preemptions_per_s:.0f} preemptions a minute" if now.preemptions_per_s else ""
    return (f"{usage}{thrown}, {now.queue_depth or 0:.0f} requests wait{_of_limit(now)}",)


def _of_limit(now: LanguageReading) -> str:
    if now.running is None:
        return ""
    limit = f" of {now.max_num_seqs:.0f}" if now.max_num_seqs is not None else ""
    return f" and {now.running:.0f}{limit} run"


def _at_limit(f: Facts) -> bool:
    now = _of(f)
    if not now.max_num_seqs or now.running is None or not f.waiting:
        return False
    return now.running >= th.AT_LIMIT * now.max_num_seqs and (now.kv_usage or 0.0) < th.KV_FULL


def _at_limit_text(f: Facts) -> tuple[str, ...]:
    now = _of(f)
    room = f" while {1 - now.kv_usage:.0%} of the KV cache are free" if now.kv_usage is not None else ""
    return (f"{now.queue_depth or 0:.0f} requests wait{_of_limit(now)}{room}",)


def _prefill_bound(f: Facts) -> bool:
    now = _of(f)
    if now.itl_p50_ms and now.itl_p95_ms and now.itl_p95_ms >= th.ITL_SPIKES * now.itl_p50_ms:
        return True
    return bool(now.prefill_ms and now.ttft_ms) and (now.prefill_ms or 0) >= th.PREFILL_SHARE * (now.ttft_ms or 1)


def _prefill_text(f: Facts) -> tuple[str, ...]:
    now = _of(f)
    said = []
    if now.itl_p50_ms and now.itl_p95_ms and now.itl_p95_ms >= th.ITL_SPIKES * now.itl_p50_ms:
        said.append(f"tokens come every {ms(now.itl_p50_ms)}, and every twentieth after {ms(now.itl_p95_ms)}")
    if now.prefill_ms and now.ttft_ms:
        length = f" (prompts of {now.prompt_tokens:,.0f} tokens)" if now.prompt_tokens else ""
        said.append(f"of {ms(now.ttft_ms)} to the first token {ms(now.prefill_ms)} compute the prompt{length}")
    return tuple(said)


def _decode_bound(f: Facts) -> bool:
    return f.language is not None and f.observation.promise.signal == "itl_p95_ms" and not f.waiting


def _decode_text(f: Facts) -> tuple[str, ...]:
    now = _of(f)
    per_token = f", and a token takes {ms(now.itl_ms)}" if now.itl_ms is not None else ""
    return (f"{now.running or 0:.0f} requests run at once{per_token}, while none waits",)


_KV = Sign("kv_cache_full", when(_kv_full), _kv_text)
_LIMIT = Sign("concurrency_limited", when(_at_limit), _at_limit_text)
NARROW = (
    _KV,
    _LIMIT,
    Sign("prefill_bound", when(_prefill_bound), _prefill_text),
    Sign("decode_bound", when(_decode_bound), _decode_text),
)


FACTORS = (
    Sign("longer_prompts", _prompts, lambda f: _grew("prompts", _of(f).prompt_tokens, f.calm.prompt_tokens)),
    Sign("longer_outputs", _outputs, lambda f: _grew("answers", _of(f).output_tokens, f.calm.output_tokens)),
    Sign("prefix_cache_lost", _prefix, _prefix_text),
    Sign("slower_engine", _slower, _slower_text),
    Sign("concurrency_limited", _fewer_seats, _fewer_seats_text),
)
"""What moved, with the size of its share in the load. `diagnosis` compares them with how the rate of requests grew."""


def narrow(f: Facts) -> tuple[str, ...]:
    """Where it is narrow now, beside a cause that came from outside: a surge fills the cache or meets the limit."""
    if (_fewer_seats(f) or 0.0) > th.MOVED:
        return ()  # told as what moved
    sign = next((sign for sign in (_KV, _LIMIT) if sign.growth(f) is not None), None)
    return sign.evidence(f) if sign is not None else ()


def split_of(f: Facts) -> dict[str, float | None]:
    """queue and service in ms of the promise that is broken; {} where the server is none of a language model."""
    now = f.language
    if now is None:
        return {}
    parts = {"ttft_p95_ms": now.prefill_ms, "itl_p95_ms": now.itl_ms}
    whole = sum(part for part in (now.prefill_ms, now.decode_ms) if part is not None) or None
    service = parts.get(f.observation.promise.signal, whole)
    if f.observation.promise.signal == "itl_p95_ms":
        return {"service_ms": service}
    total = (now.queue_ms or 0.0) + (service or 0.0)
    share = min(1.0, now.queue_ms / total) if now.queue_ms is not None and total > 0 else None
    return {"queue_ms": now.queue_ms, "service_ms": service, "queue_share": share}
