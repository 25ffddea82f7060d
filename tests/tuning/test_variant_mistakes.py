"""Mistakes in the variants of services.yaml: one sentence each, at its line, before anything is done."""

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
      release: {actuator: triton_release, connection: t}
      variant:
        connection: ranker_control
        quality_of: accuracy on 5,000 held-back rows
        read: {path: /route, variant_at: /serves}
        write: {path: /route, body: {serves: "{variant}"}}
        variants:
          - {name: full, quality: 92.4%}
          - {name: small, value: 2, quality: 90.6%, service_time: 0.3}
"""


def test_it_is_read_and_a_person_is_asked_by_default():
    (service,) = loads(GOOD, thorough=True).service_values()
    lever = service.levers["variant"]
    assert lever.mode == "approve"
    assert [(one["name"], one["value"], one["quality"]) for one in lever.options["variants"]] == [
        ("full", "", pytest.approx(0.924)),
        ("small", "2", pytest.approx(0.906)),
    ]


def test_an_editor_takes_what_the_reader_takes():
    jsonschema.validate(yaml.safe_load(GOOD), services_schema())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("quality: 92.4%", "quality: 80%", "must be ordered by quality, the best first: small (90.60%) stands after full"),
        (", quality: 90.6%", "", "variants[1].quality: is missing"),
        ("quality: 90.6%", "quality: 9.6", "must be at most 1 (found 9.6)"),
        ("quality_of: accuracy on 5,000 held-back rows\n", "\n", "quality_of: is missing"),
        ('body: {serves: "{variant}"}', "body: {serves: small}", "no way back: put {variant} into"),
        ("          - {name: small, value: 2, quality: 90.6%, service_time: 0.3}\n", "", "needs at least two"),
        ("name: small, value: 2", "name: full, value: 2", "two variants have the name full"),
        ("value: 2", "value: full", "two variants have the value full"),
        ("service_time: 0.3", "service_time: 1.2", "no faster relieves nothing"),
        ("quality: 92.4%}", "quality: 92.4%, service_time: 0.9}", "told against the first one"),
        ("variant_at: /serves", "variant_at: serves", "variant_at"),
        ("path: /route, variant_at", 'path: "/route/{variant}", variant_at', "has nothing to fill in"),
    ],
)
def test_each_mistake_is_a_sentence_at_its_place(old, new, said):
    assert old in GOOD
    with pytest.raises(ServicesFileError) as caught:
        loads(GOOD.replace(old, new, 1), thorough=True)
    assert said in str(caught.value) and "levers.variant" in str(caught.value)


TRITON = GOOD.replace(
    """        connection: ranker_control
""",
    """        actuator: triton_variant
        connection: t
""",
).replace("""        read: {path: /route, variant_at: /serves}
        write: {path: /route, body: {serves: "{variant}"}}
""", "")  # fmt: skip


def test_triton_variants_are_numbered_and_no_other_lever_moves_the_same_version():
    with pytest.raises(ServicesFileError, match="full needs the number of its version"):
        loads(TRITON, thorough=True)
    numbered = TRITON.replace("name: full, quality", "name: full, value: 1, quality")
    with pytest.raises(ServicesFileError, match="the lever release moves the version of the same model"):
        loads(numbered, thorough=True)
    alone = numbered.replace("      release: {actuator: triton_release, connection: t}\n", "")
    assert loads(alone, thorough=True).service_values()[0].levers["variant"].actuator == "triton_variant"
