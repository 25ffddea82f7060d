"""FP32 to INT8 and back over HTTP: all replicas or none, refused with the table, and honest when nobody answers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from detection.model import Service
from tests.fakes.actuators import FakeConnections, FakeTime, service, serving
from tests.fakes.quantization import judged, tiny
from tuning.actuators.model_repository import ModelRepository
from tuning.errors import (
    ControlRefused,
    ControlUnreachable,
    NotApplied,
    NotOwner,
    OutcomeUnknown,
    QuantizationRefused,
)
from tuning.model import Change
from tuning.quantization.calibration import CalibrationData
from tuning.quantization.gates import GateRefused
from tuning.quantization.onnx_model import LoadedModel
from tuning.quantization.pipeline import Quantized, Recipe

TO_INT8 = Change(
    lever="precision",
    old={"version": "1", "precision": "fp32"},
    new={"version": "1", "precision": "int8"},
)
BACK = Change(
    lever="precision",
    old={"version": "2", "precision": "int8"},
    new={"version": "1", "precision": "fp32"},
)


class Server:
    """Repository calls of one replica. `plan`: what the next POSTs do (a status, "drop", "drop-applied", "ignore")."""

    def __init__(self, folder: Path, *, marks: bool = True) -> None:
        self.folder, self.marks, self.shadows = folder, marks, True
        self.served, self.loaded = "1", ["1"]
        self.batch_size = 4
        self.recorded: bytes | None = None
        self.plan: list[Any] = []
        self.posts: list[Any] = []
        self.shadow: dict[str, Any] = {}
        self.dead = False
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers.get("Content-Length") or 0)) or b"null")
        if self.dead:
            return
        if handler.command == "GET":
            self._get(handler)
            return
        if handler.path == "/shadow":
            self.shadow = body
            _send(handler, 200 if self.shadows else 404, {"error": "there is no POST /shadow"})
            return
        if handler.path.endswith("/unload"):
            self.loaded.remove(body["version"])
            _send(handler, 200, {"loaded": self.loaded})
            return
        self.posts.append((handler.path, body))
        what = self.plan.pop(0) if self.plan else None
        if isinstance(what, int):
            _send(handler, what, {"error": "no, says the fake"})
            return
        if what in (None, "drop-applied"):
            self.served = body["version"]
            self.loaded = sorted({*self.loaded, self.served})
        if what not in ("drop", "drop-applied"):
            _send(handler, 200, {"version": self.served})

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/recorded-inputs" and self.recorded is not None:
            _send(handler, 200, self.recorded)
        elif handler.path == "/config":
            _send(handler, 200, {"batch_size": self.batch_size})
        elif handler.path == "/v2/repository/index":
            rows = [{"name": "ranker", "version": v, "state": "READY"} for v in self.loaded]
            if self.marks:
                rows = [{**row, "served": row["version"] == self.served} for row in rows]
            _send(handler, 200, [*rows, {"name": "other", "version": "7", "state": "READY"}])
        else:
            _send(handler, 404, {"error": "no such page"})


def _send(handler: BaseHTTPRequestHandler, status: int, document: object) -> None:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


class Builder:
    """Stands in for the build: counts, keeps what it was given, and passes (or not)."""

    def __init__(self) -> None:
        self.passed: bool | None = True
        self.calls: list[tuple[CalibrationData, Recipe, CalibrationData | None]] = []

    def __call__(
        self, model: LoadedModel, data: CalibrationData, recipe: Recipe, live: CalibrationData | None
    ) -> Quantized:
        self.calls.append((data, recipe, live))
        return judged(self.passed, b"int8" + data.digest.encode(), source=model.digest, calibration=data.digest)


class World:
    """Two replicas over one shared repository, with version 1 (FP32) in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replicas = [Server(folder), Server(folder)]
        self.build = Builder()
        self.time = FakeTime()
        model = folder / "repository" / "ranker" / "1"
        model.mkdir(parents=True)
        onnx.save(tiny().proto, str(model / "model.onnx"))
        np.savez(folder / "rows.npz", input=tiny().inputs)

    def actuator(self) -> ModelRepository:
        known = {"first": self.replicas[0].url, "second": self.replicas[1].url}
        return ModelRepository(FakeConnections(known), self.time.clock, self.time.sleep, make=self.build)

    def service(self, **more: object) -> Service:
        options = {
            "connection": "first",
            "endpoints": ["second"],
            "onnx": str(self.folder / "repository" / "ranker" / "1" / "model.onnx"),
            "calibration": str(self.folder / "rows.npz"),
            "repository": str(self.folder / "repository"),
            **more,
        }
        return service("precision", "model_repository", **{k: v for k, v in options.items() if v is not None})  # type: ignore[arg-type]

    @property
    def served(self) -> list[str]:
        return [replica.served for replica in self.replicas]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with ExitStack() as stack:
        for replica in made.replicas:
            replica.url = stack.enter_context(serving(replica.answer))
        yield made


def recording(rows: int, scale: float = 1.0) -> bytes:
    out = io.BytesIO()
    np.savez(out, input=(tiny().inputs[:rows] * scale).astype(np.float32), seen=np.array(rows))
    return out.getvalue()


def test_reads_what_is_served(world: World) -> None:
    setting = world.actuator().read(world.service())
    assert setting.values == {"version": "1", "precision": "fp32"}
    assert setting.note == ""


def test_there_and_back_on_every_replica(world: World) -> None:
    actuator = world.actuator()
    receipt = actuator.apply(world.service(), TO_INT8, key="p1:precision")
    assert (receipt.before, receipt.after) == (TO_INT8.old, {"version": "2", "precision": "int8"})
    assert receipt.changed
    assert world.served == ["2", "2"]
    assert receipt.evidence["built"] is True
    assert receipt.evidence["gates"] == [
        {"gate": "agreement with FP32", "found": "99.9%", "asked": "at least 98%", "passed": True}
    ]
    json.dumps(receipt.evidence, allow_nan=False)
    back = actuator.apply(world.service(), TO_INT8.inverse(), key="p2:precision")
    assert back.after == {"version": "1", "precision": "fp32"}
    assert world.served == ["1", "1"]
    assert [sorted(replica.loaded) for replica in world.replicas] == [["1", "2"]] * 2
    assert len(world.build.calls) == 1


def test_a_repeat_changes_nothing(world: World) -> None:
    actuator = world.actuator()
    actuator.apply(world.service(), TO_INT8, key="p1:precision")
    posts = [len(replica.posts) for replica in world.replicas]
    again = actuator.apply(world.service(), TO_INT8, key="p1:precision")
    assert not again.changed
    assert again.evidence["built"] is False
    assert [len(replica.posts) for replica in world.replicas] == posts
    assert len(world.build.calls) == 1


def test_the_batch_in_force_is_among_those_timed(world: World) -> None:
    world.actuator().apply(world.service(min_speedup=1.5), TO_INT8, key="p1:precision")
    recipe = world.build.calls[0][1]
    assert recipe.batches == (1, 4)
    assert recipe.limits.min_speedup == 1.5
    assert recipe.limits.min_agreement == 0.98


def test_recorded_inputs_judge_and_can_calibrate(world: World) -> None:
    world.replicas[0].recorded, world.replicas[1].recorded = recording(150), recording(300)
    receipt = world.actuator().apply(world.service(), TO_INT8, key="p1:precision")
    _, _, live = world.build.calls[0]
    assert live is not None
    assert live.rows == 300
    assert receipt.evidence["judged_on"] == "recorded live inputs"
    world.actuator().apply(world.service(), TO_INT8.inverse(), key="p2:precision")
    world.actuator().apply(world.service(calibration="recorded"), TO_INT8, key="p3:precision")
    data, _, live = world.build.calls[1]
    assert (data.rows, live) == (300, None)
    assert world.served == ["3", "3"]


@pytest.mark.parametrize("recorded", [None, recording(50), b"noise"])
def test_too_little_recorded(world: World, recorded: bytes | None) -> None:
    world.replicas[0].recorded = recorded
    with pytest.raises(QuantizationRefused, match="recorded fewer than 100 inputs"):
        world.actuator().apply(world.service(calibration="recorded"), TO_INT8, key="p1:precision")


def test_a_gate_that_refuses_moves_nothing(world: World) -> None:
    world.build.passed = False
    with pytest.raises(GateRefused, match="INT8 of ranker is refused") as caught:
        world.actuator().apply(world.service(), TO_INT8, key="p1:precision")
    assert caught.value.evidence["gates"]
    assert world.served == ["1", "1"]
    assert [replica.posts for replica in world.replicas] == [[], []]
    assert not (world.folder / "repository" / "ranker" / "2").exists()


@pytest.mark.parametrize("missing", ["onnx", "calibration", "repository"])
def test_nothing_configured_is_refused(world: World, missing: str) -> None:
    with pytest.raises(QuantizationRefused, match="no calibrated model is configured for ranker"):
        world.actuator().apply(world.service(**{missing: None}), TO_INT8, key="p1:precision")


def test_one_refuses_and_all_go_back(world: World) -> None:
    world.replicas[1].plan = [400]
    with pytest.raises(ControlRefused, match="400: no, says the fake"):
        world.actuator().apply(world.service(), TO_INT8, key="p1:precision")
    assert world.served == ["1", "1"]


def test_one_refuses_and_another_cannot_be_put_back(world: World) -> None:
    world.replicas[0].plan, world.replicas[1].plan = [None, 400], [400]
    with pytest.raises(NotApplied, match="first, changed before, could not be put back") as caught:
        world.actuator().apply(world.service(), TO_INT8, key="p1:precision")
    assert (caught.value.before["version"], caught.value.after["version"]) == ("1", "2")
    assert world.served == ["2", "1"]


def test_no_answer_but_the_read_back_shows_it(world: World) -> None:
    world.replicas[0].plan = ["drop-applied"]
    receipt = world.actuator().apply(world.service(), TO_INT8, key="p1:precision")
    assert receipt.after["version"] == "2"


def test_no_answer_and_the_old_one_serves(world: World) -> None:
    world.replicas[0].plan = ["drop"]
    with pytest.raises(OutcomeUnknown, match="the read-back still shows version 1"):
        world.actuator().apply(world.service(), TO_INT8, key="p1:precision")
    assert world.time.slept == [0.5, 1.0, 2.0, 4.0]


def test_yes_said_and_not_done(world: World) -> None:
    world.replicas[0].plan = ["ignore"]
    with pytest.raises(NotApplied, match="accepted version 2 but its read-back shows version 1"):
        world.actuator().apply(world.service(), TO_INT8, key="p1:precision")


def test_unreachable_before_anything_is_built(world: World) -> None:
    world.replicas[1].dead = True
    with pytest.raises(ControlUnreachable):
        world.actuator().apply(world.service(), TO_INT8, key="p1:precision")
    assert world.build.calls == []


def test_somebody_elses_change_is_left_alone(world: World) -> None:
    world.actuator().apply(world.service(), TO_INT8, key="p1:precision")
    change = Change(lever="precision", old={"precision": "fp16"}, new={"precision": "fp32"})
    with pytest.raises(NotOwner, match="serves int8, neither fp16 nor fp32"):
        world.actuator().apply(world.service(), change, key="p2:precision")


def test_replicas_that_differ_are_named_and_brought_together(world: World) -> None:
    actuator = world.actuator()
    actuator.apply(world.service(), TO_INT8, key="p1:precision")
    world.replicas[1].served = "1"
    setting = actuator.read(world.service())
    note = setting.note
    (other,) = setting.others.values()
    assert {setting.values["precision"], other["precision"]} == {"int8", "fp32"}
    assert "second serves version 1 (fp32)" in note or "first serves version 2 (int8)" in note
    assert actuator.apply(world.service(), TO_INT8, key="p1:precision").changed
    assert world.served == ["2", "2"]


def test_a_damaged_version_is_never_loaded(world: World) -> None:
    actuator = world.actuator()
    actuator.apply(world.service(), TO_INT8, key="p1:precision")
    actuator.apply(world.service(), BACK, key="p2:precision")
    (world.folder / "repository" / "ranker" / "2" / "model.onnx").write_bytes(b"x")
    change = Change(lever="precision", old=dict(BACK.new), new=dict(BACK.old))
    with pytest.raises(QuantizationRefused, match=r"version 2 must not be served: .*changed or damaged"):
        actuator.apply(world.service(), change, key="p3:precision")
    assert world.served == ["1", "1"]


def test_without_a_mark_the_highest_loaded_version_serves(world: World) -> None:
    for replica in world.replicas:
        replica.marks, replica.loaded = False, ["1", "10", "9"]
    assert world.actuator().read(world.service()).values["version"] == "10"


def test_the_way_back_needs_no_build_and_no_model_file(world: World) -> None:
    actuator = world.actuator()
    actuator.apply(world.service(), TO_INT8, key="p1:precision")
    bare = world.service(onnx=None, calibration=None)
    assert actuator.apply(bare, BACK, key="p2:precision").after["version"] == "1"


def test_nothing_loaded_is_said(world: World) -> None:
    world.replicas[0].loaded = []
    with pytest.raises(ControlRefused, match="has no version of ranker loaded"):
        world.actuator().read(world.service())


def test_live_answers_are_compared_with_the_old_version_until_the_way_back(world: World) -> None:
    actuator = world.actuator()
    receipt = actuator.apply(world.service(), TO_INT8, key="p1:precision")
    assert world.replicas[1].shadow == {"reference": "1", "share": 0.1}
    assert receipt.evidence["shadow"] == dict.fromkeys(
        ("first", "second"), "10% of the requests also go through version 1"
    )
    actuator.apply(world.service(), BACK, key="p2:precision")
    assert world.replicas[1].shadow == {"share": 0.0}


def test_a_server_without_shadowing_is_swapped_all_the_same(world: World) -> None:
    world.replicas[0].shadows = False
    receipt = world.actuator().apply(world.service(), TO_INT8, key="p1:precision")
    shadow = receipt.evidence["shadow"]
    assert isinstance(shadow, dict)
    assert shadow["first"].startswith("not available: ")
    assert receipt.after["version"] == "2"


def test_calibration_data_that_are_too_old(world: World) -> None:
    np.savez(world.folder / "rows.npz", input=tiny().inputs, recorded_at_s=world.time.now_s - 10 * 86_400)
    with pytest.raises(QuantizationRefused, match=r"recorded 10\.0 days ago, more than the 7\.0 days"):
        world.actuator().apply(world.service(max_calibration_age_days=7), TO_INT8, key="p1:precision")
    assert world.actuator().apply(world.service(), TO_INT8, key="p1:precision").changed


def test_no_more_than_the_served_version_and_the_way_back_stay_in_memory(world: World) -> None:
    actuator = world.actuator()
    actuator.apply(world.service(), TO_INT8, key="p1:precision")
    actuator.apply(world.service(), BACK, key="p2:precision")
    np.savez(world.folder / "rows.npz", input=tiny().inputs[:200])
    receipt = actuator.apply(world.service(), TO_INT8, key="p3:precision")
    assert receipt.after["version"] == "3"
    assert [replica.loaded for replica in world.replicas] == [["1", "3"]] * 2
    assert receipt.evidence["unloaded"] == ["2"]
