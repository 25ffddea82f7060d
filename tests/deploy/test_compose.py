"""docker-compose.yaml fits the Compose schema, keeps its promises, and every command in it exists here as well."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from demo.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"airflow-init"}
PROGRAMS = Path(sys.executable).parent


def schema() -> dict[str, Any]:
    """The Compose specification's schema, as the installed validator carries it."""
    folder = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    return dict(json.loads((folder / "compose-spec.json").read_text()))


def test_fits_the_compose_schema() -> None:
    jsonschema.validate(COMPOSE, schema())


def test_the_schema_would_see_a_mistake() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"a": {"image": "a:1", "helthcheck": {}}}}, schema())


def test_everything_that_was_promised_is_there() -> None:
    assert set(SERVICES) == {
        "postgres", "redis", "airflow-init", "airflow-api-server", "airflow-scheduler", "airflow-dag-processor",
        "airflow-triggerer", "airflow-worker", "prometheus", "alertmanager", "grafana", "mail", "demo-1", "demo-2", "load",
    }  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_bounded_watched_pinned_and_harmless(name: str) -> None:
    made = SERVICES[name]
    limits = made["deploy"]["resources"]["limits"]
    assert float(limits["cpus"]) > 0
    assert re.fullmatch(r"\d+[mg]", limits["memory"])
    assert name in ONE_SHOT or made["healthcheck"]["test"]
    tag = made["image"].rpartition(":")[2] if "${" not in made["image"] else made["image"].split(":-")[1].rstrip("}")
    assert re.search(r"\d+\.\d+", tag), "a tag that does not move"
    assert made["user"].split(":")[0] not in ("", "0", "root")
    assert made["read_only"] is True
    assert made["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in made["security_opt"]
    assert "privileged" not in made
    for port in made.get("ports", []):
        assert port.startswith("127.0.0.1:"), "loopback only"


@pytest.mark.parametrize("name", SERVICES)
def test_folders_of_this_repository_are_mounted_read_only_and_exist(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", volume)
        if source.startswith("."):
            path, _, mode = source.split(":")
            assert mode == "ro"
            assert (ROOT / path).exists(), path
        else:
            assert source.split(":")[0] in COMPOSE["volumes"]


def test_every_variable_is_documented_and_no_secret_has_a_default() -> None:
    example = (ROOT / ".env.example").read_text()
    needed = set(re.findall(r"\$\{([A-Z_0-9]+):\?", TEXT))
    optional = set(re.findall(r"\$\{([A-Z_0-9]+):-", TEXT))
    assert needed == set(re.findall(r"^([A-Z_0-9]+)=$", example, re.M))
    assert optional == set(re.findall(r"^#([A-Z_0-9]+)=.+$", example, re.M))
    assert not re.findall(r"(?<!\$)\$\{[A-Z_0-9]+\}", TEXT), "each variable is either required or has a default"
    for name in optional:
        assert not re.search("PASSWORD|SECRET|KEY|TOKEN", name)


def test_dependencies_have_what_they_are_waited_for() -> None:
    for name, made in SERVICES.items():
        for other, how in made.get("depends_on", {}).items():
            assert how["condition"] == ("service_completed_successfully" if other in ONE_SHOT else "service_healthy"), (
                name
            )
            assert other in ONE_SHOT or "healthcheck" in SERVICES[other]


def test_services_yaml_is_right_and_its_connections_are_set() -> None:
    from tuning.services_yaml import load

    settings = load(ROOT / "deploy" / "compose" / "services.yaml")
    lever = settings.services[0].levers.batch_size
    assert lever is not None
    named = [settings.prometheus.connection, settings.mail.connection, lever.connection, *lever.endpoints]
    environment = SERVICES["airflow-worker"]["environment"]
    assert [n for n in named if f"SLOTUNE_CONN_{n.upper()}" not in environment] == []


def test_prometheus_scrapes_what_the_stack_runs() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    job = next(j for j in config["scrape_configs"] if j["job_name"] == "inference")
    targets = {t for s in job["static_configs"] for t in s["targets"]}
    load = json.loads((ROOT / "deploy" / "compose" / "load.json").read_text())
    assert targets == set(load["endpoints"]) == {"demo-1:8000", "demo-2:8000"}
    assert all(s["labels"].keys() == {"service", "replica"} for s in job["static_configs"])


def test_prometheus_scrapes_slotune_itself_with_the_token_that_the_page_asks_for() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    job = next(j for j in config["scrape_configs"] if j["job_name"] == "slotune")
    (target,) = job["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert SERVICES[name]["ports"][0].endswith(f":{port}") and job["metrics_path"] == "/slotune/metrics"
    assert job["honor_labels"] is True and job["scrape_timeout"] == "10s"
    assert "SLOTUNE_TOKEN" in SERVICES[name]["environment"]
    folder, _, file = job["authorization"]["credentials_file"].rpartition("/")
    assert f"metrics-token:{folder}:ro" in SERVICES["prometheus"]["volumes"]
    assert "metrics-token:/opt/airflow/metrics" in SERVICES["airflow-init"]["volumes"]
    assert f"/opt/airflow/metrics/{file}" in SERVICES["airflow-init"]["command"][0]
    assert "/opt/airflow/metrics" in (ROOT / "deploy" / "Dockerfile").read_text()


def test_the_stacks_rules_are_those_of_its_services() -> None:
    from slotune.monitoring.rules import rules
    from tuning.services_yaml import load

    settings = load(ROOT / "deploy" / "compose" / "services.yaml")
    made = rules(settings, objective=0.99, open_for="30m")
    assert (ROOT / "deploy" / "prometheus" / "services.rules.yml").read_text() == made, (
        "SLOTUNE_CONFIG=deploy/compose/services.yaml slotune rules --out deploy/prometheus/services.rules.yml"
    )


def test_alertmanager_sends_to_the_mail_catcher() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "alertmanager" / "alertmanager.yml").read_text())
    host, _, port = config["global"]["smtp_smarthost"].partition(":")
    assert (host in SERVICES, port) == (True, "1025")
    assert config["route"]["receiver"] in {r["name"] for r in config["receivers"]}
    amtool = shutil.which("amtool")
    if amtool:
        subprocess.run([amtool, "check-config", ROOT / "deploy/alertmanager/alertmanager.yml"], check=True)


def test_dockerfile_builds_on_the_pinned_airflow_and_copies_what_is_there() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    pinned = re.search(r"^apache-airflow==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert f"apache/airflow:{pinned[1]}-python" in text
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", text, re.M):
        for source in sources.split():
            assert source in kept
            assert (ROOT / source).exists() or source == "README.md"
    assert text.rstrip().split("USER ")[-1].startswith("airflow")


def dashboards() -> list[Path]:
    return sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))


def expressions(path: Path) -> list[str]:
    body = json.loads(path.read_text())
    found = [t["expr"] for p in body["panels"] for t in p["targets"]]
    return [e.replace("$__rate_interval", "1m").replace("$service", "ranker") for e in found]


@pytest.mark.parametrize("path", dashboards(), ids=lambda p: p.name)
def test_dashboards_use_the_provisioned_source_and_metrics_that_the_demo_exports(path: Path) -> None:
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    body = json.loads(path.read_text())
    assert {t["datasource"]["uid"] for p in body["panels"] for t in p["targets"]} == {uid}
    from demo.server.metrics import Metrics

    exported = _exported_names(Metrics)
    used = {m for e in expressions(path) for m in re.findall(r"\binference_[a-z_]+", e)}
    assert used - exported == set()


def _exported_names(metrics: Any) -> set[str]:
    source = Path(sys.modules[metrics.__module__].__file__ or "").read_text()
    names = set(re.findall(r'"(inference_[a-z_]+)"', source))
    return {f"{n}{suffix}" for n in names for suffix in ("", "_total", "_bucket", "_sum", "_count")}


class TestNatively:
    """Without a Docker engine: the same programs, with the same arguments, on this machine."""

    @pytest.mark.server
    def test_promtool_accepts_configuration_rules_and_their_tests(self, tmp_path: Path) -> None:
        promtool = shutil.which("promtool")
        assert promtool, "run scripts/system-packages prometheus"
        folder = ROOT / "deploy" / "prometheus"
        rules = tmp_path / "dashboards.yml"
        asked = [e for path in dashboards() for e in expressions(path)]
        body = {"groups": [{"name": "g", "rules": [{"record": f"r{i}", "expr": e} for i, e in enumerate(asked)]}]}
        rules.write_text(yaml.safe_dump(body))
        for arguments in (
            ["check", "config", "--syntax-only", "prometheus.yml"],
            ["check", "rules", "slotune.rules.yml"],
            ["check", "rules", "services.rules.yml"],
            ["test", "rules", "slotune.test.yml"],
            ["check", "rules", str(rules)],
        ):
            done = subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.server
    def test_prometheus_knows_every_flag(self) -> None:
        shown = subprocess.run(["prometheus", "--help"], capture_output=True, text=True)
        known = shown.stdout + shown.stderr
        for flag in SERVICES["prometheus"]["command"]:
            assert flag.partition("=")[0] in known

    @pytest.mark.airflow
    def test_airflow_has_each_command(self, tmp_path: Path) -> None:
        """One process that parses each command line as `airflow` itself would; starting it once takes seconds."""
        lines = [
            made["command"] for name, made in SERVICES.items() if name.startswith("airflow-") and name not in ONE_SHOT
        ]
        lines += [["db", "migrate"], ["jobs", "check", "--job-type", "DagProcessorJob", "--hostname", "x"]]
        assert "airflow db migrate" in SERVICES["airflow-init"]["command"][0]
        program = (
            "import json, sys; from airflow.cli.cli_parser import get_parser; parser = get_parser()\n"
            "for line in json.loads(sys.argv[1]): assert callable(parser.parse_args(line).func), line"
        )
        environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor"}
        done = subprocess.run(
            [sys.executable, "-c", program, json.dumps(lines)], capture_output=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr.decode()[-2000:]

    def test_health_checks_ask_for_jobs_that_exist(self) -> None:
        asked = set(re.findall(r"--job-type (\w+)", TEXT))
        assert asked == {"DagProcessorJob", "TriggererJob"}

    @pytest.mark.server
    def test_redis_starts_with_its_arguments_and_asks_for_the_password(self, tmp_path: Path) -> None:
        server = shutil.which("redis-server")
        assert server, "run scripts/system-packages redis"
        shell = SERVICES["redis"]["command"][2].replace("$$", "$").replace("--dir /tmp", f"--dir {tmp_path}")
        port = free_port()
        environment = {**os.environ, "REDIS_PASSWORD": "s3cret"}
        process = subprocess.Popen(
            ["sh", "-c", f"{shell} --port {port} --bind 127.0.0.1"], env=environment, stdout=subprocess.DEVNULL
        )
        try:
            _until(lambda: _ping(port, "s3cret") == "PONG")
            assert "NOAUTH" in _ping(port, "")
        finally:
            process.terminate()
            process.wait(10)

    @pytest.mark.server
    def test_the_demo_service_and_its_load_start_with_their_arguments(self, tmp_path: Path) -> None:
        port = free_port()
        arguments = [a.replace("0.0.0.0", "127.0.0.1") for a in SERVICES["demo-1"]["command"]]
        arguments[arguments.index("--port") + 1] = str(port)
        assert SERVICES["demo-1"]["entrypoint"][1:] == ["-m", "demo.server"]
        server = subprocess.Popen([sys.executable, "-m", "demo.server", *arguments], cwd=ROOT)
        load = None
        try:
            health = SERVICES["demo-1"]["healthcheck"]["test"][-1].replace(":8000", f":{port}")
            _until(lambda: urllib.request.urlopen(health, timeout=1).status == 200)
            control = json.loads((ROOT / "deploy" / "compose" / "load.json").read_text())
            (tmp_path / "load.json").write_text(json.dumps({**control, "endpoints": [f"127.0.0.1:{port}"]}))
            out = tmp_path / "load.jsonl"
            given = {"/opt/slotune/config/load.json": str(tmp_path / "load.json"), "/tmp/load.jsonl": str(out)}
            wanted = [given.get(a, a) for a in SERVICES["load"]["command"]]
            load = subprocess.Popen([sys.executable, "-m", "demo.load", *wanted], cwd=ROOT)
            _until(lambda: out.exists() and out.read_text() != "")
            metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
            assert re.search(r'^inference_requests_total\{.*code="200".*\} [1-9]', metrics, re.M)
        finally:
            for process in filter(None, (load, server)):
                process.terminate()
                process.wait(10)


def _until(true: Any, within_s: float = 30.0) -> None:
    until = time.monotonic() + within_s
    while True:
        try:
            if true():
                return
        except OSError:
            pass
        assert time.monotonic() < until, "did not start in time"
        time.sleep(0.1)


def _ping(port: int, password: str) -> str:
    environment = {**os.environ, "REDISCLI_AUTH": password} if password else dict(os.environ)
    done = subprocess.run(
        ["redis-cli", "-p", str(port), "ping"], env=environment, capture_output=True, text=True, timeout=5
    )
    return done.stdout.strip()
