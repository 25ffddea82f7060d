"""When a version changed, read from which versions answered."""

from __future__ import annotations

import numpy as np
import pytest

from detection.errors import SourceUnreachable
from detection.model import Service, Slo, Span, VersionWindow
from detection.sources.prometheus import PrometheusSource, Row
from detection.versions import VersionChange, arriving, changes, served, window_of

NAN = float("nan")


def window(**shares: list[float]) -> VersionWindow:
    points = len(next(iter(shares.values())))
    values = {name.removeprefix("v"): np.array(series, dtype=float) for name, series in shares.items()}
    return VersionWindow("ranker", Span(0.0, 10.0 * (points - 1), 10.0), values)


CASES = {
    "one version": ({"v1": [1.0] * 8}, []),
    "swapped": ({"v1": [1, 1, 1, 0, 0, 0, 0], "v2": [0, 0, 0, 1, 1, 1, 1]}, [("1", "2", 30.0, 30.0)]),
    "rolled out replica by replica": (
        {"v1": [1, 1, 0.75, 0.5, 0.25, 0, 0, 0], "v2": [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]},
        [("1", "2", 20.0, 50.0)],
    ),
    "one replica of ten stays on the new one": (
        {"v1": [1, 1, 1, 0.9, 0.9, 0.9, 0.9], "v2": [0, 0, 0, 0.1, 0.1, 0.1, 0.1]},
        [("1", "2", 30.0, None)],
    ),
    "the tenth is taken back": (
        {"v1": [1, 1, 0.9, 0.9, 0.9, 0.9, 1, 1, 1, 1], "v2": [0, 0, 0.1, 0.1, 0.1, 0.1, 0, 0, 0, 0]},
        [("1", "2", 20.0, None), ("2", "1", 60.0, 60.0)],
    ),
    "there and back": (
        {"v1": [1, 1, 0, 0, 0, 0, 1, 1, 1], "v2": [0, 0, 1, 1, 1, 1, 0, 0, 0]},
        [("1", "2", 20.0, 20.0), ("2", "1", 60.0, 60.0)],
    ),
    "a request or two to another version": (
        {"v1": [1, 1, 0.99, 1, 1, 1, 1], "v2": [0, 0, 0.01, 0, 0, 0, 0]}, []),
    "one scrape of another version": ({"v1": [1, 1, 0, 1, 1, 1, 1], "v2": [0, 0, 1, 0, 0, 0, 0]}, []),
    "a restart that shows nothing for a while": (
        {"v1": [1, 1, NAN, NAN, 1, 1, 1], "v2": [0, 0, NAN, NAN, 0, 0, 0]}, []),
    "another version after a gap": (
        {"v1": [1, 1, 1, NAN, NAN, 0, 0, 0], "v2": [0, 0, 0, NAN, NAN, 1, 1, 1]}, [("1", "2", 50.0, 50.0)]),
    "the last two points are too few": ({"v1": [1, 1, 1, 1, 0, 0], "v2": [0, 0, 0, 0, 1, 1]}, []),
    "nothing at all": ({"v1": [NAN] * 6}, []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_changes(name):
    shares, expected = CASES[name]
    found = [(c.old, c.new, c.at_s, c.whole_s) for c in changes(window(**shares))]
    assert found == expected


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"v1": [1, 1, 1, 1, 0.9, 0.8], "v2": [0, 0, 0, 0, 0.1, 0.2]}, VersionChange("1", "2", 40.0, None)),
        ({"v1": [1, 1, 1, 1, 1, 0.9], "v2": [NAN, NAN, NAN, NAN, NAN, 0.1]}, VersionChange("1", "2", 50.0, None)),
        ({"v1": [1, 1, 1, 1, 0, 0], "v2": [0, 0, 0, 0, 1, 1]}, VersionChange("1", "2", 40.0, None)),
        ({"v1": [1, 1, NAN, NAN, 0, 0], "v2": [0, 0, NAN, NAN, 1, 1]}, VersionChange("1", "2", 40.0, None)),
        ({"v1": [1, 0.99, 0.99, 0.99, 0.99, 0.99], "v2": [0, 0.01, 0.01, 0.01, 0.01, 0.01]}, None),
        ({"v1": [1, 1, 1, 1, 1, 1], "v2": [0, 0, 0, 0, 0, 0]}, None),
        ({"v1": [1, 1, 1, 1, 1, 1]}, None),
        ({"v1": [NAN] * 6, "v2": [NAN, NAN, NAN, NAN, 1, 1]}, None),
    ],
    ids=["replica by replica", "one point", "at once", "after a gap", "a client asks for it", "loaded, unused", "unknown", "nothing before"],
)  # fmt: skip
def test_a_version_that_is_known_to_arrive_is_seen_with_its_first_answer(shares, expected):
    assert arriving(window(**shares), "2") == expected


def test_the_version_that_answers_most_now():
    assert served(window(v1=[1, 1, 0.4], v2=[0, 0, 0.6])) == "2"
    assert served(window(v1=[1, NAN, NAN], v2=[0, NAN, NAN])) == "1"
    assert served(window(v1=[1, NAN, NAN, NAN], v2=[0, NAN, NAN, NAN])) == ""
    assert served(VersionWindow("ranker", Span(0, 10, 10), {})) == ""


def test_shares_of_counts_are_gaps_where_nothing_was_counted():
    span = Span(0.0, 30.0, 10.0)
    found = window_of("ranker", span, {"6": np.array([30.0, 15.0, 0.0, NAN]), "7": np.array([NAN, 45.0, 0.0, NAN])})
    assert found.shares["6"][:2].tolist() == [1.0, 0.25] and found.shares["7"][:2].tolist() == [0.0, 0.75]
    assert np.isnan(found.shares["6"][2:]).all()


def triton(name: str, **more: str) -> Service:
    return Service(name=name, serving="triton", selectors={"model": name, **more}, slo=Slo(p95_ms=100))


def test_one_query_tells_the_versions_of_all_services_of_a_preset():
    span, asked = Span(0.0, 30.0, 10.0), []

    def answer(query: str, span: Span) -> list[Row]:
        asked.append(query)
        rows = [("a", "1", [1, 1, 0, 0]), ("a", "2", [0, 0, 3, 3]), ("b", "9" * 300, [1, 1, 1, 1]), ("c", "1", [5, 5, 5, 5])]
        return [Row({"model": m, "version": v}, np.array(values, dtype=float)) for m, v, values in rows]

    source = PrometheusSource("http://nowhere", rate_window_s=60.0, query_range=answer)
    found = source.read_versions([triton("a"), triton("b")], span)
    assert len(asked) == 1 and "sum by (model,version,)" in asked[0].replace(" ,", ",")
    assert sorted(found) == ["a", "b"] and found["a"].shares["2"].tolist() == [0, 0, 1, 1]
    assert max(len(name) for name in found["b"].shares) <= 125, "a version's name is bounded"


def test_who_selects_a_version_or_has_no_label_for_it_has_none():
    def answer(query: str, span: Span) -> list[Row]:
        raise AssertionError(f"nothing is asked: {query}")

    source = PrometheusSource("http://nowhere", rate_window_s=60.0, query_range=answer)
    generic = Service(name="g", serving="generic_histogram", selectors={"job": "g"}, slo=Slo(p95_ms=100))
    assert dict(source.read_versions([triton("a", version="2"), generic], Span(0.0, 30.0, 10.0))) == {}


def test_a_version_that_cannot_be_read_is_absent_and_named():
    def answer(query: str, span: Span) -> list[Row]:
        raise SourceUnreachable("Prometheus gives no answer")

    found = PrometheusSource("http://nowhere", rate_window_s=60.0, query_range=answer).read_versions([triton("a")], Span(0.0, 30.0, 10.0))
    assert dict(found) == {} and "no answer" in found.unreadable["a"]
