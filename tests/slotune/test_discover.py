"""`slotune discover` and `slotune signals` on a real Prometheus with text exporters of several serving systems."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from demo import web
from demo.processes import Child, free_port, wait_until
from detection.errors import ConfigError, SourceUnreachable
from slotune import discovery
from slotune import discovery_file as files
from slotune.cli import build_app
from slotune.discovery import Found, Sighting
from slotune.discovery_file import Entry
from tests.fakes.prometheus_http import FakePrometheus
from tests.slotune.exporters import EXPORTERS, running
from tuning.services_yaml import load

SERVING = {
    "ranker": "triton", "embedder": "triton", "llama": "vllm", "mistral": "vllm", "resnet": "torchserve", "iris": "kserve",
    "chat": "ray_serve", "iris-sk": "mlserver", "Summary": "bentoml", "fastapi": "generic_histogram",
}  # fmt: skip
FULL = {"triton": 14, "vllm": 11, "torchserve": 4, "kserve": 6, "ray_serve": 12, "mlserver": 8, "bentoml": 8, "generic_histogram": 7}


@dataclass
class Place:
    url: str
    folder: Path


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not on PATH")
    folder = Path(tempfile.mkdtemp(prefix="slotune-discover-"))
    with running(EXPORTERS) as addresses:
        jobs = [{"job_name": name, "static_configs": [{"targets": [at]}]} for name, at in addresses.items()]
        jobs.append({"job_name": "again", "static_configs": [{"targets": [addresses["kserve"]]}]})
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s", "scrape_timeout": "900ms"}, "scrape_configs": jobs}))
        data, user, port = folder / "data", "nobody" if os.geteuid() == 0 else None, free_port()
        data.mkdir()
        folder.chmod(0o755)
        if user:
            shutil.chown(data, user)
        words = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}"]
        child = Child("Prometheus", [*words, "--log.level=warn"], folder / "log", cwd=folder, user=user)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: web.answers(f"{url}/-/ready"), 60.0, "Prometheus becoming ready")
            wait_until(lambda: _samples(url) >= 12, 120.0, "scrapes")
            yield Place(url, folder)
        finally:
            child.stop()
            shutil.rmtree(folder, ignore_errors=True)


def _samples(url: str) -> float:
    query = "min(count_over_time(up%5B5m%5D))"
    result = web.call(f"{url}/api/v1/query?query={query}")["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def slotune(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(build_app(words), list(words), env=environment)


@pytest.fixture(scope="module")
def written(place: Place) -> tuple[Path, Result]:
    out = place.folder / "services.yaml"
    return out, slotune("discover", "--prometheus", place.url, "--out", str(out), "--scrape", "1", "--history", "0.01")


@pytest.mark.server
def test_every_serving_system_is_found_and_none_is_invented(written: tuple[Path, Result]) -> None:
    out, result = written
    assert result.exit_code == 0, (result.output, result.exception)
    settings = load(out, thorough=True)
    assert {service.name: service.serving for service in settings.services} == SERVING
    assert {service.mode for service in settings.services} == {"observe"}


@pytest.mark.server
def test_signals_that_an_exporter_has_are_found(written: tuple[Path, Result]) -> None:
    out, _ = written
    text = out.read_text()
    for service in yaml.safe_load(text)["services"]:
        part = text[text.index(f"- name: {service['name']}\n") :].split("- name:")[1]
        shown = part.partition("Signals found:")[2].partition("Signals missing:")[0]
        assert shown.count("#   ") >= 0.9 * FULL[service["serving"]], part


@pytest.mark.server
def test_names_overlaps_and_double_scrapes_are_said(written: tuple[Path, Result]) -> None:
    out, result = written
    text = out.read_text()
    assert "is scraped twice (jobs again, kserve)" in text
    assert "metric.prefix: kserve_vllm" in text
    assert "there is another histogram, http_request_duration_highr_seconds" in text
    assert "A GUESS: there are too few quiet points" in text
    assert "resnet: torchserve, 4 of 8 signals" in result.output


@pytest.mark.server
def test_run_again_it_changes_nothing_and_appends_only_what_is_not_there(place: Place, written: tuple[Path, Result]) -> None:
    out, _ = written
    words = ("discover", "--prometheus", place.url, "--out", str(out), "--scrape", "1", "--history", "0.01")
    before = out.read_text()
    assert "nothing to add" in slotune(*words).output
    assert out.read_text() == before
    edited = before[: before.index("  - name: resnet")].replace("p95: 1000ms", "p95: 300ms   # ours")
    out.write_text(edited)
    shown = slotune(*words)
    assert "+  - name: resnet" in shown.output
    assert "\n-" not in shown.output.partition("+++")[2]
    assert out.read_text() == edited
    slotune(*words, "--write")
    assert out.read_text().startswith(edited.rstrip("\n"))
    assert {service.name for service in load(out).services} == set(SERVING)


@pytest.mark.server
def test_asked_one_by_one_only_what_is_wanted_is_written_with_the_slo_that_was_given(place: Place) -> None:
    out = place.folder / "asked.yaml"
    words = ["discover", "--prometheus", place.url, "--out", str(out), "--scrape", "1", "--history", "0.01", "--ask"]
    said = CliRunner().invoke(build_app(words), words, input="one by one\n" + "y\n321\n" + "n\n" * (len(SERVING) - 1))
    assert said.exit_code == 0, (said.output, said.exception)
    (service,) = load(out).services
    assert service.slo.p95_ms == 321
    assert "Services that were found" in said.output
    before = out.read_text()
    none = CliRunner().invoke(build_app(words), words, input="none\n")
    assert none.exit_code == 0 and "Nothing was chosen" in none.output and out.read_text() == before
    over = CliRunner().invoke(build_app(words), words, input="")
    assert "--no-ask takes every service" in str(over.exception) and out.read_text() == before


@pytest.mark.server
def test_signals_shows_query_value_source_and_what_depends_on_each(place: Place, written: tuple[Path, Result]) -> None:
    out = written[0]
    known = {"SLOTUNE_CONN_SLOTUNE_PROMETHEUS": place.url}
    result = slotune("signals", "--service", "ranker", "--config", str(out), **known)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "ranker: 17 of 17 signals found" in result.output
    assert 'rate(nv_inference_request_success{model="ranker"' in result.output
    missing = slotune("signals", "--service", "resnet", "--config", str(out), **known).output
    assert "missing  p95_ms (P95 latency): the SLO is not watched" in missing
    assert "from http_request_duration_seconds_bucket" in missing
    assert "needed to tell: load surge" in missing
    wrong = slotune("signals", "--service", "rankr", "--config", str(out), **known)
    assert "it has: " in str(wrong.exception)


def test_what_is_one_service_and_what_are_two() -> None:
    seen = Sighting("triton", "nv_inference_exec_count")

    def names(*series: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
        return [(found.name, dict(found.selectors)) for found in discovery.group(seen, series)]

    a, b = {"model": "m", "job": "t", "instance": "1"}, {"model": "m", "job": "t", "instance": "2"}
    assert names(a, b) == [("m", {"model": "m"})]
    assert names(a, {**b, "model": "n"}) == [("m", {"model": "m"}), ("n", {"model": "n"})]
    in_two = ({**a, "namespace": "x"}, {**b, "namespace": "y"})
    assert names(*in_two) == [("m-x", {"model": "m", "namespace": "x"}), ("m-y", {"model": "m", "namespace": "y"})]
    assert names(a, {**b, "job": "u"}) == [("m-t", {"model": "m", "job": "t"}), ("m-u", {"model": "m", "job": "u"})]
    assert names({"job": "t", "instance": "1"}) == [("t", {"job": "t"})]
    twice = discovery.group(seen, [a, {**a, "job": "u"}])
    assert len(twice) == 1
    assert "1 is scraped twice (jobs t, u)" in twice[0].warnings[0]


def test_selectors_that_may_share_series_are_said() -> None:
    seen = Sighting("triton", "nv_inference_exec_count")
    one, two = Found("a", seen, {"model": "m"}), Found("b", seen, {"model": "m", "job": "t"})
    assert discovery.overlapping([one, two]) == [
        "a and b may single out the same series: add a label that tells them apart"
    ]
    assert discovery.overlapping([one, Found("c", seen, {"model": "n"})]) == []
    assert discovery.overlapping([one, Found("d", Sighting("vllm", "x"), {"model": "m"})]) == []


def test_names_of_presets_are_known_prefixed_and_renamed() -> None:
    found = {(s.preset, s.metric): (dict(s.labels), s.renamed) for s in discovery.sightings(
        ["nv_inference_exec_count", "team_nv_inference_exec_count", "my_vllm:num_requests_running", "acme_serve_replica_processing_queries",
         "model_latency_seconds_bucket", "go_gc_duration_seconds_bucket", "airflow_request_duration_bucket"]
    )}  # fmt: skip
    assert found == {
        ("triton", "nv_inference_exec_count"): ({}, ""),
        ("triton", "team_nv_inference_exec_count"): ({}, "nv_inference_exec_count"),
        ("vllm", "my_vllm:num_requests_running"): ({"metric.prefix": "my_vllm"}, ""),
        ("ray_serve", "acme_serve_replica_processing_queries"): ({"metric.prefix": "acme"}, ""),
        ("generic_histogram", "model_latency_seconds_count"): ({"metric.duration": "model_latency_seconds"}, ""),
    }


def test_an_slo_rests_on_quiet_points_and_says_what_buckets_can_show() -> None:
    quiet = np.full(200, 80.0)
    quiet[:20] = 2000.0  # an incident, which is no basis for a promise
    quiet[20:30] = np.nan
    proposal = discovery.propose_slo(quiet, None, (50.0, 100.0, 250.0), 15.0)
    assert proposal is not None
    assert (proposal.p95_ms, proposal.visible) == (120.0, True)
    assert "P95 over 170 quiet points (0.708 h): median 80 ms, 99th percentile 80 ms" in proposal.reason
    assert "between the bucket bounds 100 and 250 ms" in proposal.reason
    beyond = discovery.propose_slo(quiet, None, (50.0, 100.0), 15.0)
    assert beyond is not None
    assert not beyond.visible
    assert "ends at 100 ms: it cannot show this" in beyond.reason
    within = discovery.propose_slo(quiet, None, (500.0, 1000.0), 15.0)
    assert within is not None
    assert "the first bucket ends at 500 ms" in within.reason
    failing = np.where(np.arange(200) < 185, 0.5, 0.0)
    assert discovery.propose_slo(quiet, failing, (), 15.0) is None


@pytest.mark.parametrize(("value", "up"), [(120.0, 120.0), (120.1, 130.0), (0.0123, 0.013), (9.99, 10.0), (1000.0, 1000.0)])
def test_a_nice_number_is_the_next_of_two_digits(value: float, up: float) -> None:
    assert discovery.nice(value) == pytest.approx(up)


@given(st.text(max_size=30), st.text(min_size=1, max_size=30))
@example("a: b # c", "yes")
@example("\U0001f600\u0085\ud7ff", "0x1F")
def test_whatever_a_label_holds_is_read_again_as_it_was(name: str, value: str) -> None:
    assume(name.encode("utf-8", "ignore").decode() == name and value.encode("utf-8", "ignore").decode() == value)
    entry = Entry(name, "triton", {"model": value}, {}, (), (), None, (value,))
    read = yaml.safe_load(files.whole([entry], 15.0))["services"][0]
    assert (read["name"], read["selectors"]) == (name, {"model": value})


def test_a_file_whose_services_are_not_last_is_not_appended_to() -> None:
    for text in ("services: []\nmail: {}\n", "a: 1\n", "- 1\n", "a: [\n"):
        with pytest.raises(ConfigError):
            files.known_in(text, "services.yaml")


def test_a_prometheus_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    result = slotune("discover", "--prometheus", f"http://127.0.0.1:{free_port()}", "--out", str(tmp_path / "x.yaml"))
    assert isinstance(result.exception, SourceUnreachable)
    assert not (tmp_path / "x.yaml").exists()


def test_nothing_found_is_said_and_writes_nothing(tmp_path: Path) -> None:
    fake = FakePrometheus()
    try:
        result = slotune("discover", "--prometheus", fake.url, "--out", str(tmp_path / "x.yaml"))
    finally:
        fake.close()
    assert result.exit_code == 1
    assert "No serving system was found" in result.output
    assert not (tmp_path / "x.yaml").exists()
