"""What a lever can be told: typed per actuator, one default each, and every mistake with its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detection.errors import ConfigError
from tests.fakes.actuators import FakeConnections, FakeTime, service
from tuning import actuators
from tuning.actuators import _options as options
from tuning.actuators._http import beside
from tuning.actuators.settings import OPTIONS
from tuning.actuators.settings.batch_size import HttpConfigOptions
from tuning.actuators.settings.precision import ModelRepositoryOptions
from tuning.lever_settings import Levers
from tuning.ports import Connection
from tuning.quantization.gates import GateLimits

ROOT = Path(__file__).parents[3]


def test_every_actuator_has_its_options_and_a_lever_in_the_settings() -> None:
    assert set(OPTIONS) == set(actuators.REGISTRY)
    named = re.findall(r"Literal\['(\w+)'\]", str(Levers.model_fields)) or []
    for name, cls in OPTIONS.items():
        assert all(field.description for field in cls.model_fields.values()), name
    assert set(named) <= set(OPTIONS)


@pytest.mark.parametrize(
    ("given", "where", "words"),
    [
        ({}, "connection", "connection is missing"),
        ({"connection": ""}, "connection", "connection must not be empty"),
        ({"connection": "c", "request_timeout_s": 0}, "request_timeout_s", "greater than 0"),
        ({"connection": "c", "request_timeout_s": float("inf")}, "request_timeout_s", "finite"),
        ({"connection": "c", "request_timeout_s": "soon"}, "request_timeout_s", "found 'soon'"),
        ({"connection": "c", "endpoints": "http://x"}, "endpoints", "tuple"),
        ({"connection": "c", "env": "BATCH"}, "env", "env is no setting of this lever; known: canary, connection, endpoints"),
        ({"connection": "c", "timeout_min_ms": 30.0}, "", "timeout_min (30) is larger than timeout_max (20)"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(given: dict[str, object], where: str, words: str) -> None:
    chosen = service("batch_size", "http_config", **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        options.of(chosen, "batch_size", HttpConfigOptions)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"services.ranker.levers.batch_size{'.' if where else ''}{where}: ")


def test_what_the_loop_tells_a_lever_is_no_setting() -> None:
    chosen = service("precision", "model_repository", connection="c", drift={"psi": 1.0})
    assert options.of(chosen, "precision", ModelRepositoryOptions).min_speedup == GateLimits().min_speedup


def test_defaults_stand_in_one_place() -> None:
    found = [
        f"{file.name}:{line}"
        for file in sorted((ROOT / "tuning").rglob("*.py"))
        for line, text in enumerate(file.read_text().splitlines(), 1)
        if re.search(r"options\.get\(\s*\"(min_speedup|min_agreement|max_accuracy_drop)\",\s*[\d.]+", text)
    ]
    assert found == []


FIRST = Connection(name="c", url="http://10.0.0.1:8000", login="u", password="p", extra={"hosts": ["*.ranker.svc"]})


@pytest.mark.parametrize("url", ["http://10.0.0.1:9000", "http://r1.ranker.svc:8000"])
def test_credentials_go_where_the_connection_says(url: str) -> None:
    assert (beside(FIRST, url).url, beside(FIRST, url).password) == (url, "p")


@pytest.mark.parametrize(
    "url", ["http://10.0.0.2:8000", "http://ranker.svc.evil:80", "http://10.0.0.1@evil:80", "http://["]
)
def test_credentials_go_nowhere_else(url: str) -> None:
    with pytest.raises(ConfigError, match="on another host than the connection c") as caught:
        beside(FIRST, url)
    assert "10.0.0.1@" not in str(caught.value)


def test_without_credentials_any_address_may_stand_there() -> None:
    assert (
        beside(Connection(name="c", url="http://10.0.0.1:8000"), "http://10.0.0.2:8000").url == "http://10.0.0.2:8000"
    )


def test_a_bad_address_is_a_sentence_without_its_secrets() -> None:
    time = FakeTime()
    actuator = actuators.get("http_config")(
        FakeConnections({"c": "ftp://u:s3cret@h/?token=s3cret"}), time.clock, time.sleep
    )
    with pytest.raises(ConfigError, match="the connection c: is not an address: write http://host:port") as caught:
        actuator.read(service("batch_size", "http_config", connection="c"))
    assert "s3cret" not in str(caught.value)
