"""An INT8 build in a Kubernetes pod: created once per change, watched, read back, removed.

The pod mounts the volume that holds the model repository; the inputs lie in a hidden folder of it (.int8-builds), and
the answer is written beside them. The pod's name comes from the change's key and the inputs, so a task that is killed
and run again finds its own pod and goes on watching it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from detection.model import make_id
from tuning.actuators._http import Unanswered
from tuning.actuators._kubernetes_client import Cluster
from tuning.actuators._kubernetes_errors import Missing, Ref
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._options import bounded
from tuning.errors import (
    Conflict,
    ControlUnreachable,
    NoCapacity,
    OutcomeUnknown,
    QuantizationRefused,
    SlotuneError,
    Temporary,
)
from tuning.ports import Connections
from tuning.quantization.artefacts import SUFFIX, Artefact
from tuning.quantization.build_target import BuildTarget, build_command, pod_spec
from tuning.quantization.calibration import CalibrationData
from tuning.quantization.calibration_files import LABELS
from tuning.quantization.gates import Judgement
from tuning.quantization.onnx_model import LoadedModel, digest_of
from tuning.quantization.pipeline import Quantized, Recipe
from tuning.quantization.sensitivity import LayerHarm

FOLDER = ".int8-builds"
POLL_S = 2.0
JUDGED = (0, 1)
"""Exit codes of `slotune quantize` that come with a report: every gate passed, a gate refused."""


class PodBuild:
    """A Make: (model, rows, recipe, live rows) to a judged artefact, by way of a pod."""

    def __init__(
        self,
        connections: Connections,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        target: BuildTarget,
        service: str,
        root: Path,
        key: str,
    ) -> None:
        self._cluster = Cluster(connections, target.connection or "")
        self._clock, self._sleep = clock, sleep
        self._target, self._service, self._root, self._key = target, service, root, key

    def __call__(
        self, model: LoadedModel, data: CalibrationData, recipe: Recipe, live: CalibrationData | None
    ) -> Quantized:
        """Raises QuantizationRefused (the pod's own words), NoCapacity (it never started), Temporary (ask again)."""
        inputs = make_id(self._key, model.digest, data.digest, live.digest if live else "", str(recipe.limits))
        name = f"slotune-int8-{inputs[:12].lower()}"
        folder = self._root / FOLDER / name
        ref = Ref("", "v1", "pods", self._target.namespace, name)
        self._write(folder, model, data, live)
        inside = f"{self._target.mount.rstrip('/')}/{FOLDER}/{name}"
        command = build_command(recipe, model=_file(model), folder=inside, live=live is not None)
        self._create(ref, command)
        try:
            code = self._watch(ref)
            made = _read(folder / "out", model, recipe) if code in JUDGED else None
        except Temporary:
            raise  # the pod goes on; the next try finds it
        except SlotuneError:
            self._remove(ref, folder)
            raise
        said = "" if made is not None else self._log(ref)
        self._remove(ref, folder)
        if made is None:
            raise QuantizationRefused(f"the build in {ref} ended with code {code}: {said}")
        return made

    def _write(self, folder: Path, model: LoadedModel, data: CalibrationData, live: CalibrationData | None) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)  # the pod runs as nobody and writes its answer here
            (folder / _file(model)).write_bytes(model.data)
            for name, rows in (("rows.npz", data), ("live.npz", live)):
                if rows is not None:
                    labels = {} if rows.labels is None else {LABELS: rows.labels}
                    arrays: dict[str, Any] = {**rows.inputs, **labels}
                    np.savez(folder / name, **arrays)
        except OSError as error:
            raise Temporary(f"{folder} cannot be written: {error.strerror}") from error

    def _create(self, ref: Ref, command: list[str]) -> None:
        annotations = {"slotune/service": self._service, "slotune/change": self._key}
        pod = pod_spec(self._target, name=ref.name, command=command, annotations=annotations)
        try:
            self._cluster.create(Ref(ref.group, ref.version, ref.plural, ref.namespace), pod)
        except Conflict:
            return  # an earlier try of this very change made it
        except Unanswered as error:
            try:
                self._cluster.get(ref)
            except Missing:
                raise ControlUnreachable(f"{error}; no pod was created") from error
            except SlotuneError as unread:
                raise OutcomeUnknown(f"{error}; the read-back says: {unread}") from error

    def _watch(self, ref: Ref) -> int:
        """The container's exit code, when the pod has ended."""
        began_s = self._clock()
        while True:
            try:
                pod = self._cluster.get(ref)
            except Missing as error:
                raise Temporary(f"{ref} was removed by somebody before it ended") from error
            phase, waited_s = _phase(pod), self._clock() - began_s
            if phase in ("Succeeded", "Failed"):
                return _exit_code(pod)
            if phase == "Pending" and waited_s > self._target.pending_s:
                raise NoCapacity(f"{ref} did not start within {self._target.pending_s:.0f} s: {_why_waiting(pod)}")
            if waited_s > self._target.pending_s + self._target.deadline_s:
                raise QuantizationRefused(f"{ref} did not end within {self._target.deadline_s:.0f} s")
            self._sleep(POLL_S)

    def _log(self, ref: Ref) -> str:
        """The last telling line of the pod's log: `slotune quantize` ends with a sentence."""
        try:
            lines = [line for line in self._cluster.log(ref).splitlines() if line.strip()]
            reason = (self._cluster.get(ref).get("status") or {}).get("message")
        except SlotuneError as error:
            return f"its log cannot be read ({error})"
        return bounded(lines[-1]) if lines else bounded(str(reason or "it said nothing"))

    def _remove(self, ref: Ref, folder: Path) -> None:
        """What the build needed. A pod that cannot be removed has ended, or is ended by its deadline."""
        with contextlib.suppress(SlotuneError, Unanswered):
            self._cluster.delete(ref)
        shutil.rmtree(folder, ignore_errors=True)


def _file(model: LoadedModel) -> str:
    return f"{model.name}.onnx"


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def _exit_code(pod: Object) -> int:
    """The build container's code; -1 where there is none (evicted, past its deadline)."""
    for state in (pod.get("status") or {}).get("containerStatuses") or []:
        ended = (state.get("state") or {}).get("terminated")
        if isinstance(ended, dict):
            return int(ended.get("exitCode", -1))
    return -1


def _why_waiting(pod: Object) -> str:
    """Why a pod does not start: the image that cannot be pulled, or the scheduler's words."""
    status = pod.get("status") or {}
    waiting = [(s.get("state") or {}).get("waiting") or {} for s in status.get("containerStatuses") or []]
    words = [f"{w.get('reason')}: {w.get('message', '')}" for w in waiting if w.get("reason")]
    words += [str(c.get("message")) for c in status.get("conditions") or [] if c.get("status") == "False"]
    return bounded("; ".join(words) or "no reason given", 200)


def _read(out: Path, model: LoadedModel, recipe: Recipe) -> Quantized:
    """The report and the artefact that the pod wrote, checked against what was asked for."""
    try:
        report = json.loads((out / "report.json").read_bytes())
        path = out / f"{model.name}.{SUFFIX[recipe.target]}.onnx"
        judgement = Judgement.model_validate({k: report[k] for k in Judgement.model_fields if k in report})
        data = path.read_bytes() if judgement.passed else b""
        ranking = tuple(LayerHarm.model_validate(harm) for harm in report["ranking"])
        artefact = Artefact(
            target=recipe.target,
            data=data,
            digest=str(report["artefact"]),
            source_digest=str(report["source"]),
            calibration_digest=str(report["calibration"]),
            layers=tuple(report["layers"]),
            excluded=tuple(report["excluded_layers"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise QuantizationRefused(f"the build wrote no usable answer to {out} ({type(error).__name__})") from error
    if artefact.source_digest != model.digest or (judgement.passed and digest_of(data) != artefact.digest):
        raise QuantizationRefused(f"the build's answer in {out} is not that of this model: nothing was published")
    return Quantized(artefact, judgement, ranking)
