"""Who may turn the knobs: slotune's own loop, and what people use instead. Each drives the same simulated service."""

from __future__ import annotations

from benchmarks.control.policies.aimd import aimd
from benchmarks.control.policies.hpa import hpa
from benchmarks.control.policies.ladder import ladder
from benchmarks.control.policies.nothing import nothing
from benchmarks.control.policies.playbook import playbook
from benchmarks.control.policies.random_lever import random_lever
from benchmarks.control.policies.slotune import slotune
from benchmarks.control.runs import Policy

POLICIES: dict[str, Policy] = {
    "aimd": aimd,
    "hpa": hpa,
    "ladder": ladder,
    "nothing": nothing,
    "playbook": playbook,
    "random": random_lever,
    "slotune": slotune,
}
