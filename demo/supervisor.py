"""One demo run from the first process to the summary: set up, baseline, fault, wait for the end, tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from demo import story, web
from demo.measure import batch_seconds
from demo.person import Person, link_of
from demo.processes import DemoError
from demo.scenarios import capacity_rps, slo_ms, surge_rps
from demo.screen import Screen
from demo.stack import SERVICE, Engine, Stack
from demo.summary import BACK, CALM_S, Facts, ms_text, summarise, tell

BASELINE_S = 40.0
SWEEPS_BEFORE_FAULT = 2
QUIET_S, CALM_WAIT_S = 30.0, 90.0
"""For how long the SLO has to be kept before t0 (a rate window and a sweep), and how long that is waited for."""
BITE_S = 6.0
"""A surge that is one breaks the SLO within a second or two; one that has not after this long was too small."""
SURGES = 4
TOO_MUCH = 1.3
"""Load over the capacity of a released version that does three times the work: two fifths of the old one's."""
TICK_S = 0.5
ASK_AIRFLOW_EVERY_S = 3.0
READ_LEDGER_EVERY_S = 2.0


class Supervisor:
    """`run()` gives the summary; the caller stops the stack."""

    def __init__(self, stack: Stack, screen: Screen, duration_s: float) -> None:
        self.stack, self.screen, self.duration_s = stack, screen, duration_s
        self.scenario = stack.scenario
        self.facts = Facts(stack.scenario)
        self.load = story.LoadLog(stack.load_out)
        self.airflow: Engine | None = None
        self._asked_airflow = 0.0
        self._read_ledger, self._events = 0.0, list[story.Event]()
        self.person = Person(stack.run / "pictures") if stack.scenario.mode == "approve" else None
        self._shown: set[tuple[float, str, str]] = set()

    # phases

    def run(self) -> dict[str, Any]:
        self.screen.say(f"scenario {self.scenario.name}: {self.scenario.title}")
        self._set_up()
        self._baseline()
        self._fault()
        self._wait_for_the_end()
        return self.summary()

    def _set_up(self) -> None:
        stack, say = self.stack, self.screen.say
        stack.start_mailbox()
        stack.start_prometheus()
        say(f"Prometheus answers at {stack.prometheus.url}")
        if self.scenario.serving == "real":
            self.screen.now("set-up", 0.2, "making the model (once)")
            stack.make_model()
        stack.start_service()
        self._measure()
        self.airflow = stack.start_engine(self.facts.slo_ms)
        if stack.with_airflow:
            self.facts.airflow_url = self.airflow.url
            say(f"Airflow starts at {self.airflow.url} (user admin, password admin)")
        if stack.executor == "standalone":
            self._start_load()

    def _start_load(self) -> None:
        language = self.scenario.language
        calm = self.scenario.baseline * self.facts.capacity_rps if language is None else language.baseline_rps
        self.stack.start_load(calm)
        self.facts.calm_rps = calm
        self.facts.baseline_at_s = time.time()

    def _measure(self) -> None:
        s, facts = self.scenario, self.facts
        if s.language is not None:
            promised, facts.slo_ms = s.language.watched
            self.screen.say(
                f"EMULATED engine (it waits instead of computing): --max-num-seqs {s.batch_size}, a KV cache of "
                f"{s.language.kv_tokens} tokens; SLO: {promised.upper()} P95 under {facts.slo_ms:.0f} ms"
            )
            return
        address = self.stack.load_address()
        facts.service_s = batch_seconds(address, tuple(sorted({1, s.batch_size, 8})))
        count = s.replicas if s.serving in ("replicas", "pods") else 1
        facts.capacity_rps = capacity_rps(facts.service_s, s.batch_size, count)
        facts.slo_ms = slo_ms(facts.service_s, s.batch_size, s.slo_factor)
        times = ", ".join(f"{b} rows {t * 1000:.1f} ms" for b, t in facts.service_s.items())
        if s.variant:
            self._measure_variants(address)
        label = " (EMULATED accelerator: it waits instead of computing)" if s.serving in ("replicas", "pods") else ""
        self.screen.say(
            f"measured{label}: {times}; so about {facts.capacity_rps:.0f} requests/s at batch size {s.batch_size}"
            f"{f' on {count} replicas' if count > 1 else ''}; SLO: P95 under {facts.slo_ms:.0f} ms"
        )

    def _measure_variants(self, address: str) -> None:
        """As whoever writes services.yaml would: how much faster the smaller model is, and how often it is right."""
        facts, load = self.facts, f"{self.stack.control_url}/v2/repository/models/{SERVICE}/load"
        web.call(load, {"version": "2"}, timeout_s=60.0)
        small_s = batch_seconds(address, (1,))[1]
        web.call(load, {"version": "1"}, timeout_s=60.0)
        found = self.stack.measure_variants(small_s / facts.service_s[1])
        self.screen.say(
            f"measured: the smaller model takes {found['ratio']:.0%} of the time and is right on {found['small']:.1%} "
            f"of {found['rows']} held-back rows, the whole one on {found['full']:.1%}"
        )

    def _baseline(self) -> None:
        airflow = self.airflow
        assert airflow is not None
        if self.stack.with_airflow:
            self._watch("Airflow starts", 300.0, airflow.ready)
            self.screen.say("Airflow is ready")
        if not self.facts.baseline_at_s:  # a dozen processes that start at once would break the SLO before the surge
            self._start_load()
        self._watch("first sweeps", 240.0, self._has_swept)
        left = BASELINE_S - (time.time() - self.facts.baseline_at_s)
        until = time.time() + left
        self._watch("baseline", max(0.0, left), lambda: time.time() >= until, fails=False)
        if self.scenario.language is None:
            self._watch("calm", CALM_WAIT_S, self._is_calm, fails=False)
        calm_ms = story.p95_ms(self.load.read(), time.time() - 20, time.time())
        self.screen.say(f"baseline: P95 {ms_text(calm_ms)}")

    def _is_calm(self) -> bool:
        """Something else on the machine may break the SLO for a second: what begins then would not be t0's."""
        return story.broken_at(self.load.read(), self.facts.slo_ms, time.time() - QUIET_S) is None

    def _has_swept(self) -> bool:
        assert self.airflow is not None
        if time.monotonic() - self._asked_airflow < ASK_AIRFLOW_EVERY_S:
            return False
        self._asked_airflow = time.monotonic()
        if self.airflow.sweeps() >= SWEEPS_BEFORE_FAULT:
            return True
        if errors := self.airflow.import_errors():
            raise DemoError(f"Airflow cannot load a DAG: {errors[0]}")
        return False

    def _fault(self) -> None:
        s = self.scenario
        if s.language is not None:
            self.facts.fault_at_s, self.facts.fault_rps = time.time(), s.language.fault_rps
            self.stack.set_rate(s.language.fault_rps, s.language.burst)
            rate, length_s = s.language.burst or (s.language.fault_rps, 0.0)
            then = f" for {length_s:g} s, then {s.language.fault_rps:g}" if length_s else ""
            self.screen.say(f"t0: load rises to {rate:g} requests/s{then}")
        elif s.fault_load is not None:
            self._surge(s.fault_load)
        elif s.release:
            self._release()
        elif s.leak_mb_per_s:
            self._leak()
        else:
            self.facts.fault_at_s = time.time()
        if s.fault:
            web.call(f"{self.stack.control_url}/fault", dict(s.fault))
            self.screen.say(f"t0: fault {dict(s.fault)}")

    def _leak(self) -> None:
        """The youngest pod takes memory that it never gives back."""
        sick = self.stack.pods.ready[-1]
        web.call(f"http://{sick.address}/fault", {"leak_mb_per_s": self.scenario.leak_mb_per_s})
        self.facts.fault_at_s = time.time()
        leak, limit = self.scenario.leak_mb_per_s, self.scenario.memory_mb
        self.screen.say(f"t0: {sick.name} leaks {leak:g} MB a second; its limit is {limit} MB")

    def _release(self) -> None:
        """As somebody would who knows nothing of slotune: by the server's own call.

        A machine that was busy while its capacity was measured carries more by now, also with three times the work:
        then the load rises to more than version 2 carries, which is well below what version 1 does.
        """
        facts = self.facts
        web.call(f"{self.stack.control_url}/v2/repository/models/{SERVICE}/load", {"version": "2"}, timeout_s=60.0)
        facts.fault_at_s, facts.fault_rps = time.time(), self.scenario.baseline * facts.capacity_rps
        self.screen.say("t0: somebody else released version 2")
        for _ in range(SURGES):
            self._watch("the release", BITE_S, self._is_broken, fails=False)
            rate = surge_rps(TOO_MUCH, self._capacity_now(), facts.fault_rps)
            if self._is_broken() or rate is None:
                return
            facts.fault_rps = rate
            self.stack.set_rate(rate)
            self.screen.say(f"load rises to {rate:.0f} requests/s")

    def _surge(self, share: float) -> None:
        """Raise the load, and again where the service turns out to carry it: a machine that was busy while its
        capacity was measured would fool us otherwise. t0 is the last raise."""
        for _ in range(SURGES):
            facts = self.facts
            facts.capacity_rps = max(facts.capacity_rps, self._capacity_now())
            rate = surge_rps(share, facts.capacity_rps, facts.fault_rps)
            if rate is None:
                return
            facts.fault_at_s, facts.fault_rps = time.time(), rate
            self.stack.set_rate(rate)
            self.screen.say(f"t0: load rises to {rate:.0f} requests/s")
            if self.scenario.serving != "real":
                return
            self._watch("the surge", BITE_S, self._is_broken, fails=False)
            if self._is_broken():
                return

    def _is_broken(self) -> bool:
        return story.broken_at(self.load.read(), self.facts.slo_ms, self.facts.fault_at_s) is not None

    def _capacity_now(self) -> float:
        """From the server's own counters, at batch size 1; 0 where they cannot tell."""
        if self.scenario.serving != "real" or self.scenario.batch_size != 1:
            return 0.0
        window = "5s" if self.facts.fault_rps else "20s"
        each = self.stack.prometheus.value(
            f'sum(rate(inference_batch_seconds_total{{service="{SERVICE}"}}[{window}]))'
            f' / sum(rate(inference_batches_total{{service="{SERVICE}"}}[{window}]))')  # fmt: skip
        return 1 / each if each else 0.0

    def _wait_for_the_end(self) -> None:
        ends: dict[str, Callable[[], bool]] = {
            "resolved": self._is_resolved,
            "healed": self._is_resolved,
            "hold": self._has_held,
            "refused": self._is_refused,
            "nothing": lambda: False,
            "returned": self._has_returned,
        }
        done = ends[self.scenario.expected]
        phase = "watching" if self.scenario.expected == "nothing" else "the loop works"
        self._watch(phase, self.duration_s, done, fails=False)
        self.facts.end_at_s = time.time()

    def _is_resolved(self) -> bool:
        if self.person is not None and not self._is_approved(self.person):
            return False
        now, t0 = time.time(), self.facts.fault_at_s
        since = story.under_for_good_since(self.load.seconds, self.facts.slo_ms, t0)
        events = self.events()
        made = story.actions(events, t0)
        if not made or since is None:
            return False
        changed_at = t0 + made[-1]["at_s"]
        return now - max(since, changed_at) >= CALM_S and self._mail_after(changed_at)

    def _has_returned(self) -> bool:
        """The change has worked, the load has fallen then, and what served before serves again, as a mail says."""
        facts = self.facts
        if not facts.calm_at_s:
            if self._is_resolved():
                facts.calm_at_s = time.time()
                self.stack.set_rate(facts.calm_rps)
                self.screen.say(f"load falls to {facts.calm_rps:.0f} requests/s, as before")
            return False
        made = story.actions(self.events(), facts.calm_at_s)
        back = [one["at_s"] for one in made if one["undo"] and one["at_s"] > 0]
        return bool(back) and self._told(BACK, facts.calm_at_s + back[-1])

    def _told(self, words: str, since_s: float) -> bool:
        return any(m.eml.stat().st_mtime >= since_s and words in m.subject for m in self.stack.mailbox.mails)

    def _is_approved(self, person: Person) -> bool:
        """Whether the person that the mail asked has said yes, as Airflow tells it."""
        facts = self.facts
        if facts.yes_at_s:
            return True
        if person.error:
            raise DemoError(f"the person could not answer: {person.error}")
        link = link_of(self.stack.mailbox.mails)
        if link and not facts.link:
            facts.link = link
            who = "a person follows its link in Chromium" if person.can_answer else "open it and say yes"
            self.screen.say(f"a mail asks for a yes; {who}: {link}")
        if link and person.can_answer:
            person.ask(link)
        return bool(link) and self._has_said_yes()

    def _has_said_yes(self) -> bool:
        if self.airflow is None or time.monotonic() - self._asked_airflow < ASK_AIRFLOW_EVERY_S:
            return False
        self._asked_airflow = time.monotonic()
        for one in self.airflow.yes():
            self.facts.yes_at_s = datetime.fromisoformat(one["responded_at"]).timestamp()
            self.facts.yes_by = str(one["responded_by_user"]["name"])
        return bool(self.facts.yes_at_s)

    def _mail_after(self, at_s: float) -> bool:
        return self._told(self.scenario.proof, at_s)

    def _has_held(self) -> bool:
        mails = self.stack.mailbox.mails
        return bool(mails) and time.time() - mails[0].eml.stat().st_mtime >= CALM_S

    def _is_refused(self) -> bool:
        refused = story.refusals(self.events(), self.facts.fault_at_s)
        return bool(refused) and self._mail_after(self.facts.fault_at_s + refused[-1]["at_s"])

    # watching

    def events(self, *, now: bool = False) -> list[story.Event]:
        """The ledger, at most READ_LEDGER_EVERY_S old."""
        if now or time.monotonic() - self._read_ledger >= READ_LEDGER_EVERY_S:
            self._events, self._read_ledger = story.read_ledger(self.stack.ledger_url), time.monotonic()
        return self._events

    def _watch(self, phase: str, timeout_s: float, done: Callable[[], bool], *, fails: bool = True) -> None:
        started = time.time()
        while not done():
            elapsed = time.time() - started
            if elapsed >= timeout_s:
                if fails:
                    raise DemoError(f"{phase}: not finished after {timeout_s:.0f} s; see {self.stack.logs}")
                return
            self.stack.check()
            self.screen.now(phase, elapsed / max(timeout_s, 1e-9), self._note())
            self._tell_news()
            time.sleep(TICK_S)
        self._tell_news()

    def _note(self) -> str:
        now, seconds = time.time(), self.load.read()
        p95 = story.p95_ms(seconds, now - 5, now)
        now_set = self.stack.settings_now()
        names = {"batch_size": "batch {}", "max_num_seqs": "max-num-seqs {}", "precision": "{}"}
        names["replicas"] = "{} replicas"
        settings = ", ".join(text.format(now_set[k]) for k, text in names.items() if k in now_set)
        rate, mails = seconds[-1].sent if seconds else 0, len(self.stack.mailbox.mails)
        return f"P95 {ms_text(p95)} (SLO {self.facts.slo_ms:.0f}), {rate}/s, {settings}, {mails} mails"

    def _tell_news(self) -> None:
        for event in self.events():
            key = (event.at_s, event.kind, event.phase)
            line = story.line_of(event)
            if key not in self._shown and line:
                after = f"t0+{event.at_s - self.facts.fault_at_s:.0f} s" if self.facts.fault_at_s else "before t0"
                self.screen.say(f"{after}: {line}")
            self._shown.add(key)

    # the end

    def summary(self) -> dict[str, Any]:
        """Everything that a machine wants to know; see demo/summary.py for the keys."""
        return summarise(self.facts, self.stack, self.load.read(), self.events(now=True), self._task_failures())

    def _task_failures(self) -> list[str] | None:
        """None when Airflow could not be asked."""
        try:
            return self.airflow.task_failures() if self.airflow is not None else None
        except (OSError, ValueError, KeyError):
            return None

    def tell(self, summary: dict[str, Any]) -> None:
        """The timeline and the comparison, for people."""
        tell(self.screen, self.facts, self.events(), summary)


def repository_root() -> Path:
    return Path(__file__).resolve().parent.parent
