"""How alike two models' answers are: by chance, class by class, by neighbours, by error against the spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tuning.errors import QuantizationRefused
from tuning.quantization import likeness
from tuning.quantization.likeness import chosen, classes, direction, kappa, kind_of, values, vectors

RNG = np.random.default_rng(4)
TEN = RNG.integers(0, 10, 1000)


def clustered(width: int = 32, rows: int = 400) -> NDArray[np.float64]:
    rng = np.random.default_rng(7)
    return rng.standard_normal((20, width))[rng.integers(0, 20, rows)] + 0.5 * rng.standard_normal((rows, width))


def test_kappa_against_a_published_table() -> None:
    # Cohen 1960, table 1: 200 cases in three categories; 0.29 agree beyond the chance of 0.41.
    table = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    pairs = [(i, j) for i in range(3) for j in range(3) for _ in range(table[i, j])]
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    assert kappa(ours, theirs) == pytest.approx((0.70 - 0.41) / (1 - 0.41), abs=1e-9)


def test_answers_that_never_change_agree_with_everything() -> None:
    same = np.zeros(1000, int)
    found = classes(same, same)
    assert (found.agreement.value, found.beyond_chance) == (1.0, None)


def test_a_rare_class_that_vanishes_is_seen() -> None:
    fp32 = np.zeros(1000, int)
    fp32[:8] = 1
    found = classes(fp32, np.zeros(1000, int))
    assert found.agreement.value == 0.992
    assert found.beyond_chance == pytest.approx(0.0)
    assert (found.worst[0].label, found.worst[0].rows, found.worst[0].kept.value) == (1, 8, 0.0)
    assert found.worst[0].kept.high < 0.4


def test_a_class_with_few_rows_is_counted_and_not_judged() -> None:
    fp32 = TEN.copy()
    fp32[:4] = 77
    found = classes(fp32, TEN)
    assert found.unjudged == 1
    assert all(kept.label != 77 for kept in found.worst)


def test_many_classes_are_many_tests() -> None:
    """Each of a thousand classes keeps 97 %: none may be refused for it by chance."""
    rng = np.random.default_rng(0)
    fp32 = np.repeat(np.arange(1000), 20)
    int8 = np.where(rng.random(fp32.size) < 0.97, fp32, (fp32 + 1) % 1000)
    assert classes(fp32, int8).worst[0].kept.high > 0.9


def test_only_rows_that_fp32_gets_right_count_where_labels_tell() -> None:
    fp32 = np.array([0] * 50 + [1] * 50)
    int8 = np.array([0] * 60 + [1] * 40)
    right = np.array([True] * 50 + [False] * 10 + [True] * 40)
    assert classes(fp32, int8).worst[0].rows == 50
    assert classes(fp32, int8, right).worst[0].kept.value == 1.0


def test_rows_of_several_answers_agree_only_as_a_whole() -> None:
    fp32 = np.array([[1, 2], [3, 4], [5, 6]])
    assert classes(fp32, np.array([[1, 2], [3, 9], [5, 6]])).agreement.value == pytest.approx(2 / 3)


def test_neighbours_that_stay_and_neighbours_that_go() -> None:
    base = clustered()
    near = vectors(base, base + 0.01 * RNG.standard_normal(base.shape))
    far = vectors(base, RNG.standard_normal(base.shape))
    assert near.agreement.value > 0.99 and near.neighbours is not None and near.neighbours.value > 0.9
    assert far.neighbours is not None and far.neighbours.value == pytest.approx(far.chance_neighbours, abs=0.02)


def test_one_large_place_hides_nothing() -> None:
    base = clustered()
    base[:, 3] += 1000.0
    ruined = base + np.where(np.arange(base.shape[1]) == 3, 0.0, 5 * RNG.standard_normal(base.shape))
    assert float((base.argmax(1) == ruined.argmax(1)).mean()) == 1.0
    assert direction(base, ruined) < 0.5
    assert direction(base, base) == pytest.approx(1.0)


def test_numbers_by_their_error_against_their_spread() -> None:
    price = RNG.normal(200.0, 10.0, (500, 1))
    found = values(price, price + RNG.normal(0, 0.5, price.shape))
    assert found.error == pytest.approx(0.05, rel=0.15)
    assert found.agreement.value > 0.9
    # 2.5 % of the value is nothing, 50 % of the spread is all
    assert values(price, price * 1.025).error == pytest.approx(0.5, rel=0.1)


def test_the_worst_column_counts() -> None:
    pair = RNG.normal(0, 1, (500, 2)) * np.array([1000.0, 0.01])
    wrong = pair.copy()
    wrong[:, 1] = 0
    assert values(pair, wrong).error == pytest.approx(1.0, rel=0.05)


def test_numbers_that_never_change_are_no_evidence() -> None:
    with pytest.raises(QuantizationRefused, match="the same number for every row"):
        values(np.ones((50, 1)), np.ones((50, 1)))


@pytest.mark.parametrize(
    ("name", "array", "kind"),
    [
        ("logits", RNG.standard_normal((50, 10)), "classes"),
        ("logits", RNG.standard_normal((50, 1000)), "classes"),
        ("logits", RNG.standard_normal((50, 100, 1, 1)), "classes"),
        ("sentence_embedding", RNG.standard_normal((50, 384)), "vectors"),
        ("out", clustered() / np.linalg.norm(clustered(), axis=1, keepdims=True), "vectors"),
        ("out", clustered() + 1000.0 * np.eye(32)[3], "vectors"),
        ("out", np.abs(RNG.dirichlet(np.ones(100), 50)), "classes"),
        ("price", RNG.standard_normal((50, 1)), "values"),
        ("price", RNG.standard_normal(50), "values"),
        ("mask", RNG.standard_normal((50, 3, 8, 8)), "values"),
        ("label", RNG.integers(0, 5, 50), "classes"),
    ],
)
def test_what_kind_of_answer_it_is(name: str, array: NDArray[np.float64], kind: str) -> None:
    assert kind_of(name, array) == kind


def test_the_output_that_is_meant() -> None:
    scores, loss, label = np.zeros((5, 3)), np.zeros(5), np.zeros(5, int)
    assert chosen({"scores": scores, "loss": loss, "label": label}) == "scores"
    assert chosen({"loss": loss, "label": label}) == "loss"
    assert chosen({"label": label}) == "label"
    assert chosen({"scores": scores, "loss": loss}, "loss") == "loss"
    with pytest.raises(QuantizationRefused, match=r"several outputs could be the class scores \(a, b\)"):
        chosen({"a": scores, "b": scores})
    with pytest.raises(QuantizationRefused, match="no output of numbers called 'z'; it has a"):
        chosen({"a": scores, "t": np.array(["x"] * 5)}, "z")
    with pytest.raises(QuantizationRefused, match="answers no numbers"):
        chosen({"t": np.array(["x"] * 5)})


@given(hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 3)), st.randoms(use_true_random=False))
def test_beyond_chance_never_beats_agreement(fp32: NDArray[np.int64], random: object) -> None:
    int8 = np.random.default_rng(random.getrandbits(32)).permutation(fp32)  # type: ignore[attr-defined]
    found = classes(fp32, int8)
    assert found.beyond_chance is None or found.beyond_chance <= float((fp32 == int8).mean()) + 1e-12
    assert sum(kept.rows for kept in found.worst) <= fp32.size
    assert min((kept.rows for kept in found.worst), default=likeness.MIN_CLASS_ROWS) >= likeness.MIN_CLASS_ROWS
