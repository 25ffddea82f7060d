"""A service's inputs in files: CSV or Parquet, one file or a folder of them, as `detection.inputs.Rows`.

Each row's time is in a column, or is that of its file. What a column holds never leaves this process: findings name
columns and shares.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detection.errors import ConfigError
from detection.inputs import Column, Rows

if TYPE_CHECKING:
    import pandas as pd

MOST_FILES = 2_000
MOST_BYTES = 200_000_000
"""Of one file: a sample is what is asked for, not the log itself."""
_ENDINGS = (".csv", ".csv.gz", ".parquet")


def read(path: str, time_column: str = "", ignore: tuple[str, ...] = ()) -> Rows:
    """All rows. ConfigError (one sentence) where there are none, or a file cannot be read."""
    found = _files(Path(path))
    frames = []
    for file in found:
        frame = _frame(file).drop(columns=list(ignore), errors="ignore")
        frames.append((frame, _times(frame, file, time_column)))
    import pandas as pd

    whole = pd.concat([frame.drop(columns=[time_column], errors="ignore") for frame, _ in frames], ignore_index=True)
    times = np.concatenate([times for _, times in frames])
    known = np.isfinite(times)
    columns = {str(name): _column(whole[name])[known] for name in whole.columns}
    if not columns or not known.any():
        raise ConfigError("it holds no rows with a time", where=path)
    return Rows(columns, times[known])


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.endswith(_ENDINGS))[-MOST_FILES:]
        if not found:
            raise ConfigError(f"the folder holds no file that ends in {', '.join(_ENDINGS)}", where=str(path))
        return found
    if not path.is_file():
        raise ConfigError("there is no such file or folder of inputs", where=str(path))
    if not path.name.endswith(_ENDINGS):
        raise ConfigError(f"is neither CSV nor Parquet: its name should end in {', '.join(_ENDINGS)}", where=str(path))
    return [path]


def _frame(file: Path) -> pd.DataFrame:
    import pandas as pd

    if file.stat().st_size > MOST_BYTES:
        raise ConfigError(f"is larger than {MOST_BYTES / 1e6:g} MB: give a sample of the inputs", where=str(file))
    try:
        return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow: pip install 'slotune[parquet]'", where=str(file)) from error
    except Exception as error:  # pandas and pyarrow raise what they like on a damaged file
        raise ConfigError(f"cannot be read: {type(error).__name__}: {str(error)[:200]}", where=str(file)) from error


def _times(frame: pd.DataFrame, file: Path, column: str) -> np.ndarray:
    """Epoch seconds of each row; NaN where its time cannot be read."""
    import pandas as pd

    if not column:
        return np.full(len(frame), file.stat().st_mtime)
    if column not in frame.columns:
        raise ConfigError(f"has no column {column!r} with the time of a row", where=str(file))
    values = frame[column]
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    moments = pd.to_datetime(values, utc=True, errors="coerce", format="mixed")
    seconds = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return seconds.to_numpy(dtype=np.float64, na_value=np.nan)


def _column(values: pd.Series) -> Column:
    import pandas as pd

    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    text = values.astype(object)
    return np.array([None if missing else str(v) for v, missing in zip(text, text.isna(), strict=True)], dtype=object)
