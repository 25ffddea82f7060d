"""Connections from the environment: both spellings, and no secret in any message."""

from __future__ import annotations

import pytest

from detection.errors import ConfigError
from slotune.connections import EnvironmentConnections, unknown_extras
from tuning.ports import Connection


@pytest.mark.parametrize(
    ("text", "url", "login", "password"),
    [
        ("http://h:9090", "http://h:9090", None, None),
        ("https://u:p%40x@h:9090/prom", "https://h:9090/prom", "u", "p@x"),
        ('{"conn_type": "http", "host": "h", "port": 9090}', "http://h:9090", None, None),
        ('{"conn_type": "http", "host": "https://h/api", "login": "u", "password": "p"}', "https://h/api", "u", "p"),
        ('{"conn_type": "http", "host": "h", "schema": "https", "port": "1"}', "https://h:1", None, None),
        ('{"conn_type": "smtp", "host": "127.0.0.1", "port": 25, "extra": "{}"}', "smtp://127.0.0.1:25", None, None),
        ("http://h:443/https", "https://h:443", None, None),
        ("http://h/a/b/?x=1", "http://h/a/b", None, None),
        ("http://[::1]:9090/p", "http://[::1]:9090/p", None, None),
        ('{"conn_type": "http", "host": "u:p@h", "port": 1}', "http://h:1", "u", "p"),
        ('{"conn_type": "http", "host": "http://u:p@h:2/x?token=t", "port": 1}', "http://h:2/x", "u", "p"),
        ('{"conn_type": "generic", "host": "h/prometheus", "schema": "https", "port": 8443}', "https://h:8443/prometheus", None, None),
        ('{"conn_type": "prometheus", "host": "h", "schema": "prometheus"}', "http://h/prometheus", None, None),
        ('{"conn_type": "email", "host": "h", "port": 587}', "smtp://h:587", None, None),
        ('{"conn_type": "kubernetes", "extra": {"in_cluster": true}}', "", None, None),
        ("pods://serving/ranker?cluster=c&port=8000", "pods://serving/ranker", None, None),
    ],
)
def test_spellings(text, url, login, password):
    found = EnvironmentConnections({"AIRFLOW_CONN_MY_SERVER": text}).get("my_server")
    assert (found.url, found.login, found.password) == (url, login, password)


def test_slotunes_own_variable_goes_first():
    both = {"SLOTUNE_CONN_X": "http://a", "AIRFLOW_CONN_X": "http://b"}
    assert EnvironmentConnections(both).get("x").url == "http://a"


@pytest.mark.parametrize(
    "text", ["planted-secret", "{planted-secret", '{"extra": "planted-secret{"}', "://planted-secret"]
)
def test_a_mistake_never_repeats_the_text(text):
    with pytest.raises(ConfigError) as caught:
        EnvironmentConnections({"SLOTUNE_CONN_X": text}).get("x")
    assert "planted-secret" not in str(caught.value) and "SLOTUNE_CONN_X" in str(caught.value)


def test_repr_shows_no_secret():
    found = EnvironmentConnections({"SLOTUNE_CONN_X": "http://u:planted-secret@h"}).get("x")
    assert "planted-secret" not in repr(found) and "planted-secret" not in found.url


@pytest.mark.parametrize(
    ("text", "extra"),
    [
        ("https://h?verify=false", {"verify": "false"}),
        ("https://h?ca_file=/ca.pem", {"ca": "/ca.pem", "ca_file": "/ca.pem"}),
        ("http://h?X-Scope-OrgID=team-a", {"headers": {"X-Scope-OrgID": "team-a"}}),
        ("http://h?__extra__=%7B%22token%22%3A%20%22t%22%7D", {"token": "t"}),
        ('http://h?headers=%7B%22X-A%22%3A%20%22b%22%7D', {"headers": {"X-A": "b"}}),
        ('{"conn_type": "http", "host": "h", "extra": {"X-A": "b", "headers": {"X-C": "d"}}}', {"headers": {"X-A": "b", "X-C": "d"}}),
        ('{"conn_type": "http", "host": "h", "extra": {"extra__http__bearer_token": "t"}}', {"bearer_token": "t", "token": "t"}),
        ('{"conn_type": "http", "host": "h", "extra": {"ssl_context": "none", "verify_ssl": false}}', {"ssl_context": "none", "verify_ssl": False, "verify": False}),
    ],
)
def test_extras_in_their_spellings(text, extra):
    assert dict(EnvironmentConnections({"SLOTUNE_CONN_X": text}).get("x").extra) == extra


def test_an_extra_that_nothing_reads_is_named_with_the_nearest(caplog):
    found = EnvironmentConnections({"SLOTUNE_CONN_X": "http://h?verfy=false&token=t"}).get("x")
    assert unknown_extras(found.extra) == ["'verfy' (did you mean 'verify'?)"]
    assert "verfy" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "http://u:planted/secret@h",
        "http://u:12#planted-secret@h",
        "http://u:12?planted-secret@h",
        "http://u:planted-secret",
        "http://h:planted-secret/",
        "http://[planted-secret",
        '{"host": "h", "port": "planted-secret"}',
        '{"host": "h:planted-secret"}',
        '{"host": "h", "extra": "planted-secret"}',
        '{"host": "h", "extra": ["planted-secret"]}',
        '{"host": ["planted-secret"]}',
        '{"a":' * 100_000,
        "http://h?__extra__=planted-secret",
        "http://h?headers={planted-secret",
    ],
)
def test_what_cannot_be_read_is_repeated_nowhere(text):
    with pytest.raises(ConfigError) as caught:
        EnvironmentConnections({"SLOTUNE_CONN_X": text}).get("x")
    error: BaseException | None = caught.value
    while error is not None:
        assert "planted" not in str(error)
        error = error.__cause__


def test_what_the_environment_does_not_define_is_asked_for_beyond_it():
    beyond = {"there": Connection("there", "http://there")}
    connections = EnvironmentConnections({"SLOTUNE_CONN_HERE": "http://here"}, beyond.get)
    assert connections.get("here").url == "http://here"
    assert connections.get("there").url == "http://there"
    with pytest.raises(ConfigError, match="SLOTUNE_CONN_NOWHERE"):
        connections.get("nowhere")
