"""An INT8 build in a Kubernetes pod: created once per change, watched, read back, removed.

The pod mounts the volume that holds the model repository; the inputs lie in a hidden folder of it (.int8-builds), and
the answer is written beside them. The pod's name comes from the change's key and the inputs, so a task that is killed
and run again finds its own pod and goes on watching it. What the cluster took away (an eviction, a lost node) is
started again; what a build left behind whose task never came back is removed by the next one of that service.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detection.model import make_id
from tuning.actuators._http import Unanswered
from tuning.actuators._kubernetes_client import Cluster
from tuning.actuators._kubernetes_errors import Missing, NotAdmitted, Ref
from tuning.actuators._kubernetes_pods import age_s, read_pods
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._kubernetes_writes import until_read
from tuning.actuators._options import bounded
from tuning.errors import (
    Conflict,
    ControlRefused,
    ControlUnreachable,
    NoCapacity,
    QuantizationRefused,
    SlotuneError,
    Temporary,
)
from tuning.ports import Connections
from tuning.quantization.artefacts import SUFFIX, Artefact
from tuning.quantization.build_target import LABELS as POD_LABELS
from tuning.quantization.build_target import BuildTarget, build_command, pod_spec
from tuning.quantization.calibration import CalibrationData
from tuning.quantization.calibration_files import LABELS
from tuning.quantization.gates import Judgement
from tuning.quantization.onnx_model import LoadedModel, digest_of
from tuning.quantization.pipeline import Quantized, Recipe
from tuning.quantization.sensitivity import LayerHarm

FOLDER = ".int8-builds"
POLL_S = 2.0
LEFT_S = 3600.0
"""How long after its last possible end a build's pod and folder are kept."""
JUDGED = (0, 1)
"""Exit codes of `slotune quantize` that come with a report: every gate passed, a gate refused."""
STARTS = 3
"""How often a pod is made that the cluster takes away again."""
UNREAD_S = 120.0
"""For so long the API server may answer anything else than the pod (it restarts) before that is the answer."""
TAKEN = ("Evicted", "NodeLost", "NodeShutdown", "Preempting", "Shutdown", "Terminated", "UnexpectedAdmissionError")
"""Reasons of a failed pod that say nothing about the build: the node was drained, full, or lost."""


def build_rights(target: BuildTarget) -> list[tuple[str, Ref]]:
    """What slotune's Role has to grant for builds in a pod, as (verb, object); none for builds elsewhere."""
    if target.kind != "pod":
        return []
    pods = Ref("", "v1", "pods", target.namespace)
    return [*((verb, pods) for verb in ("create", "get", "list", "delete")), ("get", replace(pods, sub="log"))]


def may(connections: Connections, target: BuildTarget, verb: str, ref: Ref) -> bool:
    """Whether the credentials of the build's cluster have one right (changes nothing)."""
    return Cluster(connections, target.connection or "").may(verb, ref)


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
        self._tidy(name)
        self._write(folder, model, data, live)
        inside = f"{self._target.mount.rstrip('/')}/{FOLDER}/{name}"
        command = build_command(recipe, model=_file(model), folder=inside, live=live is not None)
        try:
            pod = self._ended(ref, command)
            code = _exit_code(pod)
            made = _read(folder / "out", model, recipe) if code in JUDGED else None
        except Temporary:
            raise  # the pod goes on; the next try finds it
        except SlotuneError:
            self._remove(ref, folder)
            raise
        said = "" if made is not None else self._words(ref, pod)
        self._remove(ref, folder)
        if made is None:
            raise QuantizationRefused(f"the build in {ref} {said}")
        return made

    def _ended(self, ref: Ref, command: list[str]) -> Object:
        """The pod when its container has ended by itself; one that the cluster took away is made again."""
        for _ in range(STARTS):
            self._create(ref, command)
            pod = self._watch(ref)
            taken = _taken(pod)
            if not taken:
                return pod
            with contextlib.suppress(SlotuneError):
                self._cluster.delete(ref)
        raise NoCapacity(f"{ref} was taken away {STARTS} times, the last time because of {taken}")

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
        """Makes the pod, or finds it made. Waits for room in a quota, and for an earlier pod of that name to go."""
        annotations = {"slotune/service": self._service, "slotune/change": self._key}
        pod = pod_spec(self._target, name=ref.name, command=command, annotations=annotations)
        began_s = self._clock()
        while True:
            try:
                self._cluster.create(Ref(ref.group, ref.version, ref.plural, ref.namespace), pod)
                return
            except Conflict:
                words = self._unless_own(ref)
            except NotAdmitted as error:
                if "exceeded quota" not in str(error):
                    raise
                words = str(error)
            except Unanswered as error:
                if until_read(lambda: self._seen(ref), self._sleep, str(error)) is None:
                    raise ControlUnreachable(f"{error}; no pod was created") from error
                return
            if not words:
                return
            if self._clock() - began_s > self._target.pending_s:
                raise NoCapacity(f"{ref} could not be created within {self._target.pending_s:.0f} s: {words}")
            self._sleep(POLL_S)

    def _unless_own(self, ref: Ref) -> str:
        """"" when an earlier try of this very change made the pod; else why it has to be waited for."""
        there = self._seen(ref)
        if there is None:
            return "an earlier pod of that name has just gone"
        meta = there["metadata"]
        if meta.get("deletionTimestamp"):
            return "an earlier pod of that name is still ending"
        if (meta.get("annotations") or {}).get("slotune/change") != self._key:
            raise ControlRefused(f"{ref} is there already and belongs to somebody else: remove it")
        return ""

    def _seen(self, ref: Ref) -> Object | None:
        """The pod, None when there is none."""
        try:
            return self._cluster.get(ref)
        except Missing:
            return None

    def _watch(self, ref: Ref) -> Object:
        """The pod when it has ended. An API server that answers something else for a while is waited out."""
        began_s = self._clock()
        unread_s: float | None = None
        while True:
            waited_s = self._clock() - began_s
            try:
                pod, unread_s = self._cluster.get(ref), None
            except Missing as error:
                raise Temporary(f"{ref} was removed by somebody before it ended") from error
            except SlotuneError:
                unread_s = waited_s if unread_s is None else unread_s
                if waited_s - unread_s >= UNREAD_S:
                    raise
                self._sleep(POLL_S)
                continue
            phase = str((pod.get("status") or {}).get("phase") or "Pending")
            if phase in ("Succeeded", "Failed"):
                return pod
            if phase == "Pending" and waited_s > self._target.pending_s:
                raise NoCapacity(f"{ref} did not start within {self._target.pending_s:.0f} s: {_why_waiting(pod)}")
            if waited_s > self._target.pending_s + self._target.deadline_s:
                raise QuantizationRefused(f"{ref} did not end within {self._target.deadline_s:.0f} s")
            self._sleep(POLL_S)

    def _words(self, ref: Ref, pod: Object) -> str:
        """How a build without an answer ended."""
        status = pod.get("status") or {}
        reason = str(_terminated(pod).get("reason") or "")
        if reason == "OOMKilled":
            return f"was OOMKilled: it needs more memory than {self._target.memory} (build.memory)"
        if status.get("reason") == "DeadlineExceeded":
            return f"did not end within {self._target.deadline_s:.0f} s (build.deadline)"
        return f"ended with code {_exit_code(pod)}: {self._log(ref)}"

    def _tidy(self, name: str) -> None:
        """Removes what earlier builds of this service left whose tasks never came back for it. A help, not a duty."""
        old_s = self._target.pending_s + self._target.deadline_s + LEFT_S
        pods = Ref("", "v1", "pods", self._target.namespace)
        with contextlib.suppress(SlotuneError):
            for pod in self._cluster.items(pods, ",".join(f"{k}={v}" for k, v in POD_LABELS.items())):
                meta = pod["metadata"]
                mine = (meta.get("annotations") or {}).get("slotune/service") == self._service
                phase = (pod.get("status") or {}).get("phase")
                old = age_s(meta, self._clock()) > old_s
                if mine and old and meta["name"] != name and phase in ("Succeeded", "Failed"):
                    self._cluster.delete(replace(pods, name=meta["name"]))
        with contextlib.suppress(OSError):
            for folder in (self._root / FOLDER).iterdir():
                if folder.name != name and self._clock() - folder.stat().st_mtime > old_s:
                    shutil.rmtree(folder, ignore_errors=True)

    def _log(self, ref: Ref) -> str:
        """The last telling line of the pod's log: `slotune quantize` ends with a sentence."""
        try:
            lines = [line for line in self._cluster.log(ref).splitlines() if line.strip()]
            reason = (self._cluster.get(ref).get("status") or {}).get("message")
        except SlotuneError as error:
            return bounded(f"its log cannot be read ({error})")
        return bounded(lines[-1]) if lines else bounded(str(reason or "it said nothing"))

    def _remove(self, ref: Ref, folder: Path) -> None:
        """What the build needed. A pod that cannot be removed has ended, or is ended by its deadline."""
        with contextlib.suppress(SlotuneError, Unanswered):
            self._cluster.delete(ref)
        shutil.rmtree(folder, ignore_errors=True)


def _file(model: LoadedModel) -> str:
    return f"{model.name}.onnx"


def _terminated(pod: Object) -> Object:
    """How the build container ended, {} where nothing tells (evicted before it began)."""
    for state in (pod.get("status") or {}).get("containerStatuses") or []:
        ended = (state.get("state") or {}).get("terminated")
        if isinstance(ended, dict):
            return ended
    return {}


def _exit_code(pod: Object) -> int:
    """The build container's code; -1 where there is none."""
    code = _terminated(pod).get("exitCode")
    return code if isinstance(code, int) else -1


def _taken(pod: Object) -> str:
    """Why the cluster took the pod away, in its words; "" when the build ended by itself."""
    status = pod.get("status") or {}
    if status.get("phase") != "Failed" or _exit_code(pod) in JUDGED:
        return ""
    disrupted = [c for c in status.get("conditions") or [] if c.get("type") == "DisruptionTarget"]
    by = next((c for c in disrupted if c.get("status") == "True"), status)
    if status.get("reason") not in TAKEN and by is status:
        return ""
    return bounded(f"{by.get('reason')}: {by.get('message') or status.get('message') or ''}")


def _why_waiting(pod: Object) -> str:
    """Why a pod does not start: the image that cannot be pulled, or the scheduler's words."""
    held = read_pods([pod], 0.0)
    if held.stuck or held.held or held.unschedulable:
        return held.stuck_why or held.why
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
