"""A model repository in Triton's layout, and publishing into it so that nobody ever sees half a version.

    ROOT/<model>/<version>/model.onnx (or model.plan) + manifest.json
    ROOT/<model>/config.pbtxt

A version is written aside, flushed to the disk, then renamed into place: a build that is killed leaves a folder that no
server looks at (its name starts with a dot) and that the next build removes. Versions are never changed afterwards.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from detection.model import Value
from tuning.errors import QuantizationRefused, Temporary
from tuning.quantization.onnx_model import TensorSpec, digest_of

MANIFEST = "manifest.json"
ASIDE = ".publishing-"
FORMAT = 1


class Manifest(Value):
    """Who a version is. digest: sha256 of the model file. recipe: what else made it (excluded layers, target, ...).

    engine: for a TensorRT plan, what it was built for (see tensorrt_engine.EngineFacts). judgement: the gates' table.
    made_for: the key of the change that had it made, so that a task that is run again finds its own work.
    """

    format: int = FORMAT
    model: str
    precision: str
    file: str
    digest: str
    source_digest: str
    calibration_digest: str = ""
    recipe: dict[str, object] = {}
    engine: dict[str, object] = {}
    judgement: dict[str, object] = {}
    made_for: str = ""

    def same_build(self, other: Manifest) -> bool:
        """The same thing made again: precision, digests and recipe are equal (timings in the judgement may differ)."""
        keys = ("precision", "file", "digest", "source_digest", "calibration_digest", "recipe", "engine")
        return all(getattr(self, key) == getattr(other, key) for key in keys)


class Version(Value):
    """A published version. manifest None: put there by somebody else (an FP32 model without a manifest)."""

    number: int
    path: str
    manifest: Manifest | None = None

    @property
    def precision(self) -> str:
        return self.manifest.precision if self.manifest is not None else "fp32"


class Repository:
    """The versions of one model below `root`. `fsync` is an argument, so that tests can stop a publish half way."""

    def __init__(self, root: Path, model: str, *, fsync: Callable[[int], None] = os.fsync) -> None:
        if not model or "/" in model or model.startswith("."):
            raise QuantizationRefused(f"{model!r} is no usable model name: letters, digits, - and _ please")
        self.root, self.model, self.folder, self._fsync = root, model, root / model, fsync

    def versions(self) -> tuple[Version, ...]:
        """Published versions, oldest first. Folders that are no numbers (half-written ones too) are not versions."""
        if not self.folder.is_dir():
            return ()
        numbers = sorted(int(p.name) for p in self.folder.iterdir() if p.is_dir() and p.name.isdigit())
        return tuple(
            Version(number=n, path=str(self.folder / str(n)), manifest=read_manifest(self.folder / str(n)))
            for n in numbers
        )

    def find(self, wanted: Manifest) -> Version | None:
        """The newest version that is the same build, so that making it again is a no-op."""
        same = [v for v in self.versions() if v.manifest is not None and v.manifest.same_build(wanted)]
        return same[-1] if same else None

    def find_made(
        self, *, source_digest: str, calibration_digest: str, recipe: Mapping[str, object], made_for: str = ""
    ) -> Version | None:
        """The newest undamaged INT8 version of this model and recipe, from these rows or for this very change."""
        for version in reversed(self.versions()):
            known = version.manifest
            if known is None or known.precision != "int8" or known.source_digest != source_digest:
                continue
            same = known.calibration_digest == calibration_digest or (made_for and known.made_for == made_for)
            if same and known.recipe == dict(recipe) and not problems(Path(version.path)):
                return version
        return None

    def publish(
        self,
        data: bytes,
        manifest: Manifest,
        *,
        keep: int = 4,
        protect: Sequence[int] = (),
        config: str | None = None,
    ) -> Version:
        """Add a version (or answer the one that is there already), then drop the oldest beyond `keep`.

        protect: versions that a server serves; they and the newest FP32 version are never dropped. config: text of
        config.pbtxt, written when there is none. QuantizationRefused: the manifest does not describe `data`.
        Temporary: another build is publishing right now, or the disk said no.
        """
        if digest_of(data) != manifest.digest:
            raise QuantizationRefused(f"the digest in the manifest of {self.model} is not that of the model file")
        with self._locked():
            self._sweep()
            there = self.find(manifest)
            if there is not None and not problems(Path(there.path)):
                return there
            version = self._add(data, manifest)
            if config is not None and not (self.folder / "config.pbtxt").exists():
                self._write(self.folder / "config.pbtxt", config.encode())
            self._prune(keep, {*protect, version.number})
            return version

    def _add(self, data: bytes, manifest: Manifest) -> Version:
        taken = [v.number for v in self.versions()]
        number = max(taken, default=0) + 1
        aside = self.folder / f"{ASIDE}{manifest.digest[:12]}"
        final = self.folder / str(number)
        try:
            aside.mkdir()
            self._write(aside / manifest.file, data)
            self._write(
                aside / MANIFEST,
                (json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode(),
            )
            self._flush_folder(aside)
            aside.rename(final)
            self._flush_folder(self.folder)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise Temporary(
                f"version {number} of {self.model} could not be written to {self.root}: {error.strerror}"
            ) from error
        return Version(number=number, path=str(final), manifest=manifest)

    def _prune(self, keep: int, protect: set[int]) -> None:
        versions = self.versions()
        full = [v.number for v in versions if v.precision == "fp32"]
        protect = protect | set(full[-1:])
        spare = [v for v in versions if v.number not in protect]
        for version in spare[: max(0, len(versions) - max(1, keep))]:
            # Renamed first: a server that looks meanwhile sees the whole version or none.
            gone = self.folder / f"{ASIDE}gone-{version.number}"
            Path(version.path).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed builds left. Only called under the lock, so nothing live is touched."""
        for left in sorted(self.folder.glob(f"{ASIDE}*")):
            shutil.rmtree(left, ignore_errors=True)

    def _write(self, path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            self._fsync(file.fileno())

    def _flush_folder(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            self._fsync(handle)
        finally:
            os.close(handle)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One publisher at a time per model; the kernel frees the lock when a process dies."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise Temporary(f"the model repository {self.root} cannot be written: {error.strerror}") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Temporary(f"another build is publishing {self.model} right now: try again later") from error
            yield
        finally:
            os.close(handle)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a version folder; None when it has none or one that is not ours."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None


def problems(folder: Path) -> tuple[str, ...]:
    """What is wrong with a published version: a missing file, bytes that are not those of the manifest. () is good."""
    manifest = read_manifest(folder)
    if manifest is None:
        return (f"{folder} has no readable {MANIFEST}",)
    file = folder / manifest.file
    if not file.is_file():
        return (f"{file} is missing",)
    if digest_of(file.read_bytes()) != manifest.digest:
        return (f"{file} has other bytes than its manifest says: it was changed or damaged",)
    return ()


def config_pbtxt(
    model: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    platform: str,
    max_batch: int,
    serve: Sequence[int],
) -> str:
    """Triton's model configuration. serve: the versions in force; a new one is published without taking traffic.

    platform: "onnxruntime_onnx" or "tensorrt_plan". The batch dimension is implied by max_batch_size and left out.
    """
    versions = ", ".join(map(str, serve))
    parts = [
        f'name: "{model}"',
        f'platform: "{platform}"',
        f"max_batch_size: {max_batch}",
        _tensors("input", inputs),
        _tensors("output", outputs),
        f"version_policy {{ specific {{ versions: [ {versions} ] }} }}",
        "dynamic_batching { }",
    ]
    return "\n".join(parts) + "\n"


def _tensors(kind: str, specs: Sequence[TensorSpec]) -> str:
    def line(spec: TensorSpec) -> str:
        dims = ", ".join(str(d or -1) for d in spec.shape[1:])
        return f'  {{ name: "{spec.name}" data_type: {_triton_type(spec)} dims: [ {dims} ] }}'

    body = ",\n".join(line(spec) for spec in specs)
    return f"{kind} [\n{body}\n]"


def _triton_type(spec: TensorSpec) -> str:
    names = {"float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64", "bool": "TYPE_BOOL"}
    names["object"] = "TYPE_STRING"
    found = names.get(spec.dtype) or f"TYPE_{spec.dtype.upper()}"
    if spec.dtype not in names and not spec.dtype.startswith(("int", "uint")):
        raise QuantizationRefused(f"Triton has no type for {spec.text()}")
    return found
