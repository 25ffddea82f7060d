"""Reading arrays from a .npz / .npy file or a folder of them. Whatever is wrong with a file is a sentence.

Pickles are never loaded: a file of rows must not be able to run code.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuning.errors import QuantizationRefused

LABELS = "labels"
RECORDED = "recorded_at_s"


def read_rows(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file, or of a folder's files behind each other. QuantizationRefused: nothing usable is there."""
    try:
        if path.is_dir():
            return _read_folder(path)
        if path.exists():
            return _read_file(path)
    except OSError as error:
        raise QuantizationRefused(f"{path} cannot be read: {error.strerror}") from error
    raise QuantizationRefused(
        f"there is no calibration data at {path}: give an .npz file or a folder of .npz/.npy files"
    )


def read_npz(file: Path | io.BytesIO, source: str) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz. QuantizationRefused: no such file, pickled objects, damaged, or too large for memory."""
    try:
        found = np.load(file, allow_pickle=False)
        bare = isinstance(found, np.ndarray)
        arrays = {} if bare else {name: found[name] for name in found.files}
        if not bare:
            found.close()
    except MemoryError as error:
        raise QuantizationRefused(f"{source} says that it holds more than fits into memory") from error
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds: all mean the same to a user
        raise QuantizationRefused(f"{source} is not a readable .npz file of plain arrays") from error
    if bare:
        raise QuantizationRefused(f"{source} holds one bare array; save it as .npz with the input's name")
    return arrays


def read_labels(path: Path) -> NDArray[Any]:
    """The right classes from a file of their own: its only array, or the one called "labels"."""
    if not path.is_file():
        raise QuantizationRefused(f"there are no labels at {path}")
    arrays = _read_file(path)
    if LABELS not in arrays and len(arrays) != 1:
        raise QuantizationRefused(f"{path} holds several arrays and none is called {LABELS}")
    return np.asarray(arrays[LABELS] if LABELS in arrays else next(iter(arrays.values())))


def _read_file(path: Path) -> dict[str, NDArray[Any]]:
    if path.suffix != ".npy":
        return read_npz(path, str(path))
    try:
        return {"input": np.load(path, allow_pickle=False)}
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise QuantizationRefused(f"{path} is not a readable .npy file") from error


def _read_folder(path: Path) -> dict[str, NDArray[Any]]:
    """All files of a folder in the order of their names, rows behind each other."""
    files: Sequence[Path] = sorted(p for p in path.iterdir() if p.suffix in (".npz", ".npy"))
    if not files:
        raise QuantizationRefused(f"the folder {path} holds no .npz or .npy file")
    parts = [_read_file(file) for file in files]
    odd = next((file for file, part in zip(files, parts, strict=True) if part.keys() != parts[0].keys()), None)
    if odd is not None:
        raise QuantizationRefused(
            f"{odd.name} holds other arrays than {files[0].name}: every file needs the same names"
        )
    try:
        return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}
    except (ValueError, TypeError) as error:
        raise QuantizationRefused(f"the files in {path} have different shapes: {error}") from error
