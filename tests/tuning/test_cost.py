"""What requests cost: what it is made of, what is said of it, and that an unknown cost is not 0."""

from __future__ import annotations

import pytest

from detection.model import Lever, Service, Slo
from tests.fakes import reports
from tests.fakes.ledger import FakeLedger
from tests.fakes.planning import make_window
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning import cost
from tuning.loop.once import run_once
from tuning.model import Cost
from tuning.report import render

REPLICAS = Lever(name="replicas", actuator="kubernetes", cost_per_hour=2.0)


def service(own: float = 0.0, lever: bool = True) -> Service:
    levers = {"replicas": REPLICAS} if lever else {}
    return Service(name="ranker", serving="triton", slo=Slo(p95_ms=100), levers=levers, cost_per_hour=own)


@pytest.mark.parametrize(("own", "lever", "price"), [(0.0, True, 2.0), (3.0, True, 3.0), (3.0, False, 3.0), (0.0, False, 0.0)])
def test_the_price_is_the_services_own_else_the_levers(own, lever, price):
    assert cost.price_of(service(own, lever)) == price


def test_three_replicas_at_two_an_hour_and_ten_requests_a_second():
    found = cost.cost_of(make_window({"replicas": 3.0, "qps": 10.0, "generation_tokens_per_s": 500.0}), 2.0)
    assert found.per_hour == 6.0
    assert found.per_1000 == pytest.approx(6.0 / 36_000 * 1000)
    assert found.per_1m_tokens == pytest.approx(6.0 / 1_800_000 * 1e6)


@pytest.mark.parametrize("values", [{"qps": 10.0}, {"replicas": [float("nan")] * 61, "qps": 10.0}])
def test_without_replicas_it_is_not_known(values):
    assert cost.cost_of(make_window(values), 2.0) is None


def test_a_service_that_answers_nothing_has_no_cost_per_request_and_costs_all_the_same():
    found = cost.cost_of(make_window({"replicas": 3.0, "qps": 0.0}), 2.0)
    assert (found.per_hour, found.per_1000) == (6.0, None)
    assert cost.beside(service(), make_window({"replicas": 3.0}), make_window({"replicas": 3.0, "qps": 5.0})) == ()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (Cost(per_hour=12.2, qps=8.0, per_1000=0.42), Cost(per_hour=9.1, qps=8.1, per_1000=0.31),
         "0.42 → 0.31 per 1,000 requests; 3.10 an hour saved"),
        (Cost(per_hour=2.0, qps=8.0, per_1000=0.07), Cost(per_hour=4.0, qps=16.0, per_1000=0.07),
         "0.07 → 0.07 per 1,000 requests; 2.00 an hour more; the load moved as well, from 8 to 16 requests/s"),
        (Cost(per_hour=2.0, qps=8.0, per_1000=0.42), Cost(per_hour=2.0, qps=8.0, per_1000=0.42, per_1m_tokens=3.5),
         "0.42 → 0.42 per 1,000 requests; not known → 3.50 per 1M generated tokens; as much an hour as before"),
        (None, Cost(per_hour=2.0, per_1000=0.00031), "not known → 0.00031 per 1,000 requests"),
        (None, None, ""),
    ],
)  # fmt: skip
def test_before_and_after_in_words(before, after, said):
    assert cost.moved(before, after) == said


def test_the_mail_shows_the_cost_of_1000_requests_before_and_after_a_change():
    world, mails = World(qps=lambda t: 60.0 if t < 120 else 180.0), KeptMails()
    loop = parts(world, FakeLedger(), mails, services=SERVICES.replace("mode: act", "mode: act\n    cost_per_hour: 3.6"))
    world.wait(60)
    for _ in range(12):
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
    (mail,) = [mail for mail in mails.mails if "Resolved" in mail.subject]
    before, after = _costs(mail.text)
    # One replica at 3.6 an hour: 0.001 a second. It carried about 105 requests a second, and 180 after the change.
    assert before == pytest.approx(1 / 117.6, rel=0.2) and after == pytest.approx(1 / 180, rel=0.1)
    assert "as much an hour as before" in mail.text and "per 1,000 requests" in mail.html


def _costs(text: str) -> tuple[float, float]:
    line = next(line for line in text.splitlines() if line.startswith("Cost: "))
    old, _, rest = line.removeprefix("Cost: ").partition(" → ")
    return float(old), float(rest.split(" per ")[0])


def test_a_mail_without_prices_says_nothing_of_cost():
    assert "Cost:" not in render(reports.report()).text
