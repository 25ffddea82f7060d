"""The services.yaml that `slotune discover` writes: commented, in mode observe; a file keeps the lines it has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from detection.errors import ConfigError
from detection.outside_text import printable
from slotune.discovery import SloProposal

if TYPE_CHECKING:
    from tuning.actuators.search import Behind

_HEAD = """\
# Written by `slotune discover`. All in mode observe: slotune watches, plans and mails, and changes nothing.
# Check it with `slotune check services.yaml`; what each key means stands in docs/configuration.md.
prometheus:
  connection: slotune_prometheus   # define it: export SLOTUNE_CONN_SLOTUNE_PROMETHEUS=http://host:9090
  step: {step}
  rate_window: {window}
services:
"""
NO_SLO_MS = 1000.0


@dataclass(frozen=True)
class Entry:
    """One service as it is written down. found: (signal, value now, metrics). missing: (signal, what is off).

    place: lines about the workload behind it, and the lever that it would have."""

    name: str
    preset: str
    selectors: Mapping[str, str]
    labels: Mapping[str, str]
    found: tuple[tuple[str, str, str], ...]
    missing: tuple[tuple[str, str], ...]
    slo: SloProposal | None
    warnings: tuple[str, ...] = ()
    place: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it the same service in another run, whatever people called it."""
        return _key(self.preset, self.selectors, self.labels)


def whole(entries: Sequence[Entry], scrape_s: float) -> str:
    """The file for these services."""
    return _HEAD.format(step=f"{scrape_s:g}s", window=f"{4 * scrape_s:g}s") + "".join(map(written, entries))


def known_in(text: str, name: str) -> list[tuple[str, tuple[object, ...]]]:
    """(name, key) of the services in a file. ConfigError: it cannot be read, or its services are not its last key."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("is no YAML: mend it, or name another file with --out", where=name) from error
    services = data.get("services") if isinstance(data, dict) else None
    if not isinstance(services, list) or list(data)[-1] != "services":
        raise ConfigError("has no list `services` as its last key, to which services could be appended", where=name)
    return [
        (str(s.get("name")), _key(str(s.get("serving")), _texts(s.get("selectors")), _texts(s.get("labels"))))
        for s in services
        if isinstance(s, dict)
    ]


def extended(text: str, entries: Sequence[Entry], known: Sequence[tuple[str, tuple[object, ...]]]) -> str:
    """The file with the services that it does not have yet; the same text where there are none."""
    keys, names = {key for _, key in known}, {name for name, _ in known}
    added = [entry for entry in entries if entry.key not in keys]
    indent = re.search(r"^( *)- *name:", text, re.MULTILINE)
    lead = indent.group(1) if indent else "  "
    more = "".join(written(entry, taken=entry.name in names) for entry in added)
    shifted = "".join(lead + line[2:] if line.strip() else line for line in more.splitlines(True))
    return text if not added else text.rstrip("\n") + "\n" + shifted


def unseen(known: Sequence[tuple[str, tuple[object, ...]]], entries: Sequence[Entry]) -> list[str]:
    """The names of services of a file that were not found."""
    keys = {entry.key for entry in entries}
    return [name for name, key in known if key not in keys]


def written(entry: Entry, *, taken: bool = False) -> str:
    """One service as YAML, with comments. taken: another service has this name."""
    name = f"{entry.name}-2" if taken else entry.name
    lines = [f"  - name: {_text(name)}", f"    serving: {entry.preset}"]
    lines += [f"    # {_comment(warning)}" for warning in entry.warnings]
    lines += ["    selectors:", *(f"      {key}: {_text(value)}" for key, value in sorted(entry.selectors.items()))]
    if entry.labels:
        lines += ["    labels:", *(f"      {key}: {_text(value)}" for key, value in sorted(entry.labels.items()))]
    lines += ["    slo:", *_slo(entry.slo), "    mode: observe"]
    lines += ["    # Signals found:", *(f"    #   {s}: {v}, from {_comment(m)}" for s, v, m in entry.found)]
    if entry.missing:
        lines += ["    # Signals missing:", *(f"    #   {s}: {without}" for s, without in entry.missing)]
    lines += [f"    # {_comment(line)}" for line in entry.place]
    lines.append("    levers: {}   # nothing may be changed: docs/actuators.md says which levers there are")
    return "\n".join(lines) + "\n"


def _slo(slo: SloProposal | None) -> list[str]:
    if slo is None:
        return [
            "      # A GUESS: there are too few quiet points of P95 to tell. Write what you promise.",
            f"      p95: {NO_SLO_MS:g}ms",
        ]
    return [f"      # {slo.reason}.", f"      p95: {slo.p95_ms:.12g}ms"]


def _key(preset: str, selectors: Mapping[str, str], labels: Mapping[str, str]) -> tuple[object, ...]:
    metrics = {key: value for key, value in labels.items() if key.startswith(("metric.", "unit."))}
    return preset, tuple(sorted(selectors.items())), tuple(sorted(metrics.items()))


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(inner) for key, inner in value.items()} if isinstance(value, dict) else {}


def _text(value: str) -> str:
    """A YAML scalar that is read as this text again, whatever it holds."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", value) and yaml.safe_load(value) == value
    return value if plain else yaml.safe_dump(value, default_style='"', width=10**6).strip()


def _comment(text: str) -> str:
    return printable(text, 300)


def workload_lines(name: str, found: Behind, cluster: str) -> tuple[str, ...]:
    """What discover tells of the workload behind a service: what it is, its replica lever, where its pods are told."""
    at = f"{found.namespace}/{found.name}"
    kind = "" if found.kind == "Deployment" else f", kind: {found.kind}"
    lever = (
        f"replicas: {{min: {max(1, found.low)}, max: {max(1, found.high)}, connection: {cluster}, "
        f"namespace: {found.namespace}, target: {found.name}{kind}}}"
    )
    variable = f"SLOTUNE_CONN_{name.upper().replace('-', '_').replace('.', '_')}_CONTROL"
    query = f"port={found.port}&cluster={cluster}" + ("" if found.kind == "Deployment" else f"&kind={found.kind}")
    pods = f"{found.pods} {'pod' if found.pods == 1 else 'pods'}"
    return (
        f"In Kubernetes: {found.kind} {at}, {pods}, {found.owner}, {found.low} to {found.high} replicas.",
        f"Its replica lever would be  {lever}",
        *((f"Each pod by itself, for a batch lever:  export {variable}='pods://{at}?{query}'",) if found.port else ()),
    )
