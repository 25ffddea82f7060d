"""CSV as people export it: read as it was meant, or refused in a sentence."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detection.backtest.recorded import load
from detection.errors import ConfigError

T0 = 1_764_000_000
TIMES = [T0 + 300 * i for i in range(8)]
VALUES = [80.25, 81.5, 1234.5, 79.0, 80.0, 82.0, 83.0, 84.0]
ISO = [str(np.datetime64(t, "s")) for t in TIMES]
EXAMPLES = int(os.environ.get("SLOTUNE_FUZZ", "100"))


def table(head: str, rows: list[str]) -> str:
    return "\n".join([head, *rows]) + "\n"


def comma(value: float) -> str:
    return f"{value:.2f}".replace(".", ",")


FILES = {
    "plain": table("timestamp,p95_ms", [f"{t}Z,{v}" for t, v in zip(ISO, VALUES, strict=True)]),
    "units and quotes": table('"Time","p95_ms"', [f'"{t.replace("T", " ")}","{v} ms"' for t, v in zip(ISO, VALUES, strict=True)]),
    "seconds": table("Time,p95_ms", [f"{t}Z,{v / 1000:.5f} s" for t, v in zip(ISO, VALUES, strict=True)]),
    "microseconds": table("time,P95_MS", [f"{t}Z,{v * 1000:.2f} µs" for t, v in zip(ISO, VALUES, strict=True)]),
    "mixed units": table("time,p95_ms", [f"{t}Z,{f'{v / 1000} s' if v > 1000 else f'{v} ms'}" for t, v in zip(ISO, VALUES, strict=True)]),
    "spreadsheet": "sep=;\n" + table("Time;p95_ms", [f"{t};{comma(v)}" for t, v in zip(ISO, VALUES, strict=True)]),
    "decimal comma": table("timestamp;p95_ms", [f"{t}.000;{comma(v)}" for t, v in zip(ISO, VALUES, strict=True)]),
    "thousands": table("timestamp,p95_ms", [f'{t},"{v:,.2f}"' for t, v in zip(TIMES, VALUES, strict=True)]),
    "thousands with dots": table("timestamp;p95_ms", [f"{t};{f'{v:,.2f}'.translate(str.maketrans(',.', '.,'))}" for t, v in zip(TIMES, VALUES, strict=True)]),
    "tabs": table("timestamp\tp95_ms", [f"{t}\t{v}" for t, v in zip(TIMES, VALUES, strict=True)]),
    "milliseconds since 1970": table("ts,p95_ms", [f"{t * 1000},{v}" for t, v in zip(TIMES, VALUES, strict=True)]),
    "microseconds since 1970": table("ts,p95_ms", [f"{t * 10**6},{v}" for t, v in zip(TIMES, VALUES, strict=True)]),
    "nanoseconds since 1970": table("_time,p95_ms", [f"{t * 10**9},{v}" for t, v in zip(TIMES, VALUES, strict=True)]),
    "floating epochs": table("ts,p95_ms", [f"{t}.0,{v}" for t, v in zip(TIMES, VALUES, strict=True)]),
    "annotations": "#group,false,false\n#default,_result,\n" + table("timestamp,p95_ms", [f"{t},{v}" for t, v in zip(TIMES, VALUES, strict=True)]),
    "days first": table("date,p95_ms", [f"{t[8:10]}.{t[5:7]}.{t[:4]} {t[11:]},{v}" for t, v in zip(ISO, VALUES, strict=True)]),
    "months first": table("date,p95_ms", [f"{t[5:7]}/{t[8:10]}/{t[:4]} {t[11:]},{v}" for t, v in zip(ISO, VALUES, strict=True)]),
    "byte order mark": "\ufeff" + table("timestamp,p95_ms", [f"{t},{v}" for t, v in zip(TIMES, VALUES, strict=True)]),
    "exponents": table("timestamp,p95_ms", [f"{t},{v:.6e}" for t, v in zip(TIMES, VALUES, strict=True)]),
}  # fmt: skip


def written(folder: Path, text: str, name: str = "ranker.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", FILES)
def test_every_way_of_writing_it_is_the_same_recording(tmp_path: Path, name: str):
    (recording,) = load(written(tmp_path, FILES[name]))
    assert recording.window.span.start_s == T0 and recording.window.span.step_s == 300
    np.testing.assert_allclose(recording.window.values["p95_ms"], VALUES, rtol=1e-9)


def test_shares_rates_and_gaps(tmp_path: Path):
    text = table("timestamp,error_rate,qps,queue_depth", [f"{TIMES[0]},2.5 %,1.2 K req/s,3", f"{TIMES[1]},,40 ops,null", f"{TIMES[2]},0.5%,41 /s,5"])
    values = load(written(tmp_path, text))[0].window.values
    np.testing.assert_allclose(values["error_rate"], [0.025, np.nan, 0.005])
    np.testing.assert_allclose(values["qps"], [1200.0, 40.0, 41.0])
    np.testing.assert_allclose(values["queue_depth"], [3.0, np.nan, 5.0])


def test_compressed_and_in_utf_16(tmp_path: Path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(FILES["plain"].encode()))
    (tmp_path / "b.csv").write_bytes(FILES["plain"].encode("utf-16"))
    for recording in load(tmp_path):
        np.testing.assert_allclose(recording.window.values["p95_ms"], VALUES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (table("timestamp,p95_ms", [f"{t},5 furlongs" for t in TIMES]), "has a unit that is not a time"),
        (table("timestamp,error_rate", [f"{t},5 ms" for t in TIMES]), "has a unit that is not a share"),
        (table("timestamp,own", [f"{TIMES[0]},5 ms", f"{TIMES[1]},5 s"]), "have several units"),
        (table("timestamp,p95_ms", [f"{t},fast" for t in TIMES]), "most values of p95_ms are no numbers"),
        (table("timestamp,p95_ms,P95_MS", [f"{t},1,2" for t in TIMES]), "is there twice"),
        (table("when,p95_ms", [f"{t},1" for t in TIMES]), "the column timestamp is missing"),
        (table("timestamp", [f"{t}" for t in TIMES]), "no column besides timestamp"),
        (table("date,p95_ms", ["01/02/2026 10:00,1", "01/03/2026 10:00,2"]), "which number is the day"),
        (table("timestamp,p95_ms", ["tomorrow,1", "today,2"]), "no timestamp can be read (the first is 'tomorrow')"),
        (table("timestamp,p95_ms", ["9e30,1", "9e30,2"]), "no time since 1970"),
        (table("timestamp,p95_ms", ["-1.0,1"]), "no time since 1970"),
        ("timestamp,p95_ms\n", "holds no rows"),
        ("", "holds no rows"),
        (table("timestamp,p95_ms", ["1,2,3,4", "1,2"]), "cannot be read as CSV|no column|no timestamp"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(tmp_path: Path, text: str, says: str):
    with pytest.raises(ConfigError, match=says.replace("(", "\\(").replace(")", "\\)")):
        load(written(tmp_path, text))


def local_times(zone: bool) -> str:
    hours = ["2026-10-25T01:30:00", "2026-10-25T02:00:00", "2026-10-25T02:30:00", "2026-10-25T02:00:00", "2026-10-25T02:30:00", "2026-10-25T03:00:00"]
    offsets = ["+02:00"] * 3 + ["+01:00"] * 3
    return table("timestamp,p95_ms", [f"{t}{o if zone else ''},{80 + i}" for i, (t, o) in enumerate(zip(hours, offsets, strict=True))])


def test_local_times_over_the_end_of_summer_time(tmp_path: Path):
    with pytest.raises(ConfigError, match="end of summer time"):
        load(written(tmp_path, local_times(zone=False)))
    (recording,) = load(written(tmp_path, local_times(zone=True)))
    assert recording.window.values["p95_ms"].tolist() == [80, 81, 82, 83, 84, 85]


@pytest.mark.parametrize("year", ["1000", "0001", "9999-12-31"])
def test_a_time_of_another_age_is_no_time(tmp_path: Path, year: str):
    with pytest.raises(ConfigError, match="no timestamp can be read"):
        load(written(tmp_path, table("timestamp,p95_ms", ["inf,1", f"{year},2"])))
    rows = [f"{year},1", "2026-11-30T10:00:00Z,2", "2026-11-30T10:01:00Z,3"]
    (recording,) = load(written(tmp_path, table("timestamp,p95_ms", rows)))
    assert recording.window.values["p95_ms"].tolist() == [2, 3] and recording.odd["unreadable timestamps"] == 1


_cells = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(repr), st.integers().map(str), st.text(max_size=12),
    st.sampled_from(["", "NaN", "5 ms", "5%", "1e999", "1,2", "2026-13-45", "2026-11-30T10:00:00Z", "1764000000", '"', "=1+1", "\x00", "9" * 400]),
)  # fmt: skip


@pytest.mark.timeout(120 + EXAMPLES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    head=st.lists(st.one_of(st.sampled_from(["timestamp", "Time", "p95_ms", "qps", "value", "series", "sep=;"]), st.text(max_size=8)), min_size=1, max_size=4),
    rows=st.lists(st.lists(_cells, min_size=1, max_size=4), max_size=6),
    separator=st.sampled_from([",", ";", "\t", "|"]),
)
def test_any_file_is_a_recording_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, head: list[str], rows: list[list[str]], separator: str):
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    text = "\n".join(separator.join(cells) for cells in [head, *rows])
    (folder / "x.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    for path in (folder, folder / "x.csv"):
        try:
            for recording in load(path):
                assert all(np.isfinite(v).any() or np.isnan(v).all() for v in recording.window.values.values())
        except ConfigError as error:
            assert str(error)


@pytest.mark.timeout(120 + EXAMPLES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400))
def test_any_bytes_are_a_recording_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    file = tmp_path_factory.getbasetemp() / "bytes.csv"
    file.write_bytes(data)
    try:
        load(file)
    except ConfigError as error:
        assert str(error)
