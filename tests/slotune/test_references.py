"""The pages made from the registries are those in docs/, and the JSON schema agrees with the reader."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from detection import presets
from detection.errors import ConfigError
from detection.signals import SIGNALS
from slotune.preset_reference import nameable, page
from slotune.reference import reference
from slotune.schema import services_schema
from tests.tuning.test_services_mistakes import GOOD
from tuning.planning.causes import CAUSES
from tuning.services_yaml import loads

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "made"), [("configuration.md", reference), ("presets.md", page)])
def test_the_page_is_the_one_in_docs(name: str, made):
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made(), "run `make docs`"


def test_every_cause_and_signal_has_its_row():
    text = page()
    assert {name for name, cause in CAUSES.items() if not cause.told_by} == {"healthy", "unknown"}
    assert all(f"`{name}`:" in text for name in SIGNALS)
    assert all(signal.without for signal in SIGNALS.values())
    assert all(set(group) <= set(SIGNALS) for cause in CAUSES.values() for group in cause.told_by)


def test_what_a_preset_reads_decides_what_can_be_told():
    assert nameable(CAUSES["lost_capacity"], "triton") and nameable(CAUSES["batch_too_small"], "triton")
    assert not nameable(CAUSES["idle_capacity"], "bentoml")
    assert all(preset.versions and preset.presence for preset in presets.REGISTRY.values())


def test_the_schema_accepts_what_the_reader_accepts():
    jsonschema.Draft202012Validator.check_schema(services_schema())
    jsonschema.validate(yaml.safe_load(GOOD), services_schema())


@pytest.mark.parametrize(
    ("old", "new"),
    [("p95: 100ms", "p95: 100"), ("p95: 100ms", "p99: 100ms"), ("mode: observe", "mode: auto"), ("serving: triton", "serving: tritton"),
     ("      p95: 100ms\n", ""), ("min: 1\n", "min: 0\n"), ("services:\n", "service:\n"), ("dry_run: false", "dry_run: maybe")],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(old: str, new: str):
    text = GOOD.replace(old, new, 1)
    with pytest.raises(ConfigError):
        loads(text, thorough=True)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), services_schema())


def test_the_command_prints_it():
    from typer.testing import CliRunner

    from slotune.cli import build_app

    done = CliRunner().invoke(build_app(["schema"]), ["schema"])
    assert done.exit_code == 0 and json.loads(done.stdout)["title"] == "slotune services.yaml"
