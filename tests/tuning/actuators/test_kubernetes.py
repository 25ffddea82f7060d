from __future__ import annotations

from tests.fakes.kubernetes import World, bounds, eventually


def test_raises_the_floor_and_the_pods_follow(world: World) -> None:
    lever, ranker = world.lever(), world.service()
    assert lever.read(ranker).values == {"min_replicas": 2, "max_replicas": 10, "replicas": 2}
    receipt = lever.apply(ranker, bounds((2, 10), (4, 10)), key="plan-1:replicas")
    assert (receipt.plan_id, receipt.changed, receipt.before["min_replicas"]) == ("plan-1", True, 2)
    assert receipt.after == {"min_replicas": 4, "max_replicas": 10}
    assert world.bounds() == (4, 10)
    eventually(lambda: world.replicas() == 4)
    again = lever.apply(ranker, bounds((2, 10), (4, 10)), key="plan-1:replicas")
    assert (again.changed, again.id) == (False, receipt.id)
