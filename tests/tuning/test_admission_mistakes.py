"""Mistakes in an admission lever of services.yaml: one sentence each, at its line, before anything is done."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from slotune.schema import services_schema
from tuning.services_yaml import ServicesFileError, loads

GOOD = """\
services:
  - name: ranker
    serving: triton
    selectors: {model: ranker}
    slo: {p95: 100ms}
    mode: act
    levers:
      admission:
        connection: gateway
        limits: concurrency
        per: service
        unlimited: 0
        min: 4
        max_refused: 60%
        read: {path: /limits, limit_at: /concurrency}
        write: {method: PUT, path: /limits, body: {concurrency: "{limit}"}}
"""


def test_it_is_read_and_a_person_is_asked_by_default():
    (service,) = loads(GOOD, thorough=True).service_values()
    lever = service.levers["admission"]
    assert (lever.mode, lever.actuator, lever.minimum) == ("approve", "http_admission", 4)
    told = {name: lever.options[name] for name in ("limits", "per", "unlimited", "max_refused")}
    assert told == {"limits": "concurrency", "per": "service", "unlimited": 0, "max_refused": 0.6}


def test_an_editor_takes_what_the_reader_takes():
    jsonschema.validate(yaml.safe_load(GOOD), services_schema())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("        min: 4\n", "", "min: is missing"),
        ("min: 4", "min: 0", "must be at least 1"),
        ("limits: concurrency", "limits: sessions", "limits"),
        ("        limits: concurrency\n", "", "limits: is missing"),
        ("unlimited: 0", "unlimited: 7", "unlimited"),
        ("max_refused: 60%", "max_refused: 100%", "must be smaller than 1"),
        ('{concurrency: "{limit}"}', "{concurrency: 8}", "no way back: put {limit} into"),
        ("limit_at: /concurrency", "limit_at: concurrency", "limit_at"),
        ("read: {path: /limits,", 'read: {path: "/limits/{limit}",', "has nothing to fill in"),
        ("        min: 4\n", "        min: 4\n        max: 9\n", "max"),
    ],
)
def test_each_mistake_is_a_sentence_at_its_place(old, new, said):
    assert old in GOOD
    with pytest.raises(ServicesFileError) as caught:
        loads(GOOD.replace(old, new, 1), thorough=True)
    assert said in str(caught.value) and "levers.admission" in str(caught.value)


FIELD = """\
        actuator: kubernetes_admission
        connection: cluster
        namespace: inference
        kind: networking.istio.io/v1/destinationrules
        target: ranker
        limits: queue
        min: 4
        limit_at: /spec/trafficPolicy/connectionPool/http/http1MaxPendingRequests
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("limit_at: /spec", "limit_at: /status", "must lead to a field of what people wish"),
        ("networking.istio.io/v1/destinationrules", "Deployment", ""),
        ("/trafficPolicy/connectionPool/http/http1MaxPendingRequests", "/replicas", "replicas are changed by the lever"),
    ],
)
def test_a_field_that_is_no_place_of_a_limit_is_a_sentence(old, new, said):
    text = GOOD[: GOOD.index("        connection: gateway")] + FIELD
    assert loads(text, thorough=True).service_values()[0].levers["admission"].actuator == "kubernetes_admission"
    text = text.replace(old, new)
    if not said:
        text, said = text.replace("limit_at: /spec", "limit_at: /spec/template"), "its change restarts every replica"
    with pytest.raises(ServicesFileError) as caught:
        loads(text, thorough=True)
    assert said in str(caught.value) and "levers.admission" in str(caught.value)
