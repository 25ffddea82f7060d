"""The questions of `slotune discover`: which services, and what each promises."""

from __future__ import annotations

import io

import pytest
import yaml
from rich.console import Console

from slotune.commands import _discover_terminal as terminal
from slotune.discovery import SloProposal
from slotune.discovery_file import Entry, whole

SLO = SloProposal(410.0, "P95 of quiet hours is at most 273 ms (2000 points); a half more")
RANKER = Entry("ranker", "triton", {"model": "ranker"}, {}, (("p95_ms", "87 ms", "nv_x"),), (("busy", "no utilisation"),), SLO)
LLAMA = Entry("llama [7b]", "vllm", {"model_name": "llama"}, {}, (("qps", "2 /s", "vllm_x"),), (), None)


def answered(words: str, *entries: Entry) -> tuple[list[Entry], str]:
    out = io.StringIO()
    chosen = terminal.choose(entries, Console(file=out, width=160), io.StringIO(words))
    return chosen, out.getvalue()


def test_the_table_tells_what_each_is_what_it_would_promise_and_what_is_missing() -> None:
    out = io.StringIO()
    terminal.show([RANKER, LLAMA], Console(file=out, width=200))
    told = out.getvalue()
    for words in ("ranker", "triton", "1 of 2", "87 ms", "410 ms", "no utilisation", "llama [7b]", "no P95", "too little history"):
        assert words in told


def test_all_takes_every_proposal_and_asks_only_for_the_slo_that_nobody_could_propose() -> None:
    chosen, told = answered("all\n2.5s\n", RANKER, LLAMA)
    assert chosen[0] == RANKER and chosen[1].slo is not None and chosen[1].slo.p95_ms == 2500.0
    assert "ranker" not in told and "too little history" in told
    document = yaml.safe_load(whole(chosen, 15.0))
    assert [service["slo"] for service in document["services"]] == [{"p95": "410ms"}, {"p95": "2500ms"}]


def test_one_by_one_leaves_out_what_is_refused_and_takes_a_persons_slo() -> None:
    chosen, _ = answered("one by one\nn\ny\n300\n", LLAMA, RANKER)
    (ranker,) = chosen
    assert ranker.name == "ranker" and ranker.slo == SloProposal(300.0, "Chosen when it was discovered; what was proposed: 410 ms")


@pytest.mark.parametrize("nonsense", ["soon", "-5", "0", "1e99", "nan", "99999d"])
def test_a_time_that_is_none_is_asked_for_again(nonsense: str) -> None:
    chosen, told = answered(f"one by one\ny\n{nonsense}\n250ms\n", RANKER)
    assert chosen[0].slo is not None and chosen[0].slo.p95_ms == 250.0
    assert "is no time" in told


def test_a_guess_that_is_left_stays_marked_as_one() -> None:
    (llama,), _ = answered("all\n\n", LLAMA)
    assert llama.slo is None and "A GUESS" in whole([llama], 15.0)


def test_none_takes_none() -> None:
    assert answered("none\n", RANKER)[0] == []
