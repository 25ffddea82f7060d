"""Connections from the environment: both spellings, and no secret in any message."""

from __future__ import annotations

import pytest

from detection.errors import ConfigError
from slotune.connections import EnvironmentConnections


@pytest.mark.parametrize(
    ("text", "url", "login", "password"),
    [
        ("http://h:9090", "http://h:9090", None, None),
        ("https://u:p%40x@h:9090/prom", "https://h:9090/prom", "u", "p@x"),
        ('{"conn_type": "http", "host": "h", "port": 9090}', "http://h:9090", None, None),
        ('{"conn_type": "http", "host": "https://h/api", "login": "u", "password": "p"}', "https://h/api", "u", "p"),
        ('{"conn_type": "http", "host": "h", "schema": "https", "port": "1"}', "https://h:1", None, None),
        ('{"conn_type": "smtp", "host": "127.0.0.1", "port": 25, "extra": "{}"}', "smtp://127.0.0.1:25", None, None),
    ],
)
def test_spellings(text, url, login, password):
    found = EnvironmentConnections({"AIRFLOW_CONN_MY_SERVER": text}).get("my_server")
    assert (found.url, found.login, found.password) == (url, login, password)


def test_slotunes_own_variable_goes_first():
    both = {"SLOTUNE_CONN_X": "http://a", "AIRFLOW_CONN_X": "http://b"}
    assert EnvironmentConnections(both).get("x").url == "http://a"


@pytest.mark.parametrize("text", ["planted-secret", "{planted-secret", '{"extra": "planted-secret{"}', "://planted-secret"])
def test_a_mistake_never_repeats_the_text(text):
    with pytest.raises(ConfigError) as caught:
        EnvironmentConnections({"SLOTUNE_CONN_X": text}).get("x")
    assert "planted-secret" not in str(caught.value) and "SLOTUNE_CONN_X" in str(caught.value)


def test_repr_shows_no_secret():
    found = EnvironmentConnections({"SLOTUNE_CONN_X": "http://u:planted-secret@h"}).get("x")
    assert "planted-secret" not in repr(found) and "planted-secret" not in found.url
