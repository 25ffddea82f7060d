"""Writes docs/presets.md from the registries: `python -m slotune.preset_reference FILE`.

Which signals each preset reads, what is off without one, and which causes can be named with what it reads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from detection import presets
from detection.exporters import EXPORTERS
from detection.signals import SIGNALS
from tuning.planning.causes import CAUSES, Cause

_INTRO = """# Presets: signals and causes

Generated from the registries by `make docs`; a test compares the two.

A preset turns a serving system's own metrics into signals. A signal that a server does not export is missing, never 0;
`slotune check --live` names each one that a service lacks, with what is off without it and with a metric of a similar
name where there is one. Names that a service may override (`labels: {metric.<name>: ...}`) stand below each table.

What a preset does not read, a service adds by PromQL, for any signal of the table:

```yaml
services:
  - name: ranker
    serving: generic_histogram
    selectors: {job: ranker}
    signals:
      accuracy: avg by ($by) (shadow_agreement_ratio{$sel})
      busy: avg by ($by) (rate(worker_busy_seconds_total{$sel}[$w]))
```

`$sel` becomes the matchers of `selectors` (other matchers may follow it), `$by` the labels that tell services apart,
`$w` the rate window, `$(name)` a name that can be overridden. The value is in the signal's own unit: ms, a share of
0..1, requests per second. A percentile by a query of its own has no buckets, so that a P95 beyond a histogram's end is
not seen as such.

## A preset of your own

For several services of one kind, name it once; `serving` of a service then names it. It starts from one of ours
(`like`), or from nothing, and then needs at least `p95_ms`:

```yaml
presets:
  - name: gateway
    like: generic_histogram
    names: {duration: gateway_request_ms, requests: gateway_requests_total}
    units: {duration: ms}
    signals: {busy: "avg by ($by) (gateway_busy_ratio{$sel})"}
services:
  - {name: edge, serving: gateway, selectors: {job: edge}, slo: {p95: 150ms}}
```

Every key is in the [configuration](configuration.md); `slotune check` holds names, units, signals and queries against
what slotune knows, each mistake with its line, and `slotune signals --service edge` shows what each query answers. A
package brings presets by the entry-point group `slotune.presets`: the entry point's name is the preset's, and it is a
mapping with the same keys (`pyproject.toml`: `[project.entry-points."slotune.presets"]`, `acme = "acme.presets:ACME"`).
One that cannot be used is named in the log, and left out.
"""


def page() -> str:
    """The whole page, Markdown."""
    names = list(presets.OURS)
    lines = [_INTRO, *_exporters(), "## Releases", "", "| preset | serving system | releases |", "|---|---|---|"]
    lines += [f"| `{name}` | {p.title} | {p.versions} |" for name, p in presets.OURS.items()]
    lines += ["", "## Signals", "", f"| signal | {' | '.join(names)} | without it |", "|---" * (len(names) + 2) + "|"]
    for signal in SIGNALS.values():
        cells = ["yes" if signal.name in presets.OURS[name].signals else "" for name in names]
        lines.append(f"| `{signal.name}`: {signal.title} | {' | '.join(cells)} | {signal.without} |")
    lines += ["", "## Causes", "", "Which causes can be told with what a preset reads (a service may export less).", ""]
    lines += [f"| cause | {' | '.join(names)} | needs |", "|---" * (len(names) + 2) + "|"]
    for cause in CAUSES.values():
        if not cause.told_by:
            continue
        cells = ["yes" if nameable(cause, name) else "" for name in names]
        groups = [group for group in cause.told_by if group]
        said = " or ".join(", ".join(f"`{signal}`" for signal in group) for group in groups) or "nothing"
        lines.append(f"| {cause.name}: {cause.title} | {' | '.join(cells)} | {said} |")
    lines += ["", "## Names that can be overridden", "", "| preset | name | default |", "|---|---|---|"]
    for name, preset in presets.OURS.items():
        filled = {key: value for key, value in preset.resolved({}) if key in preset.names}
        lines += [f"| `{name}` | `metric.{key}` | `{value}` |" for key, value in filled.items()]
        units = sorted(preset.units.items())
        lines += [f"| `{name}` | `unit.{key}` (s, ms or us) | `{unit}` |" for key, unit in units]
    return "\n".join(lines) + "\n"


def _exporters() -> list[str]:
    signals = [signal for signal in SIGNALS.values() if any(signal.name in e.signals for e in EXPORTERS.values())]
    lines = ["## Machines: CPU, memory, network, GPU", "", _MACHINES, ""]
    lines += [f"- `{name}`: {exporter.title}." for name, exporter in EXPORTERS.items()]
    lines += ["", f"| signal | unit | {' | '.join(EXPORTERS)} | without it |", "|---" * (len(EXPORTERS) + 3) + "|"]
    for signal in signals:
        cells = ["yes" if signal.name in exporter.signals else "" for exporter in EXPORTERS.values()]
        lines.append(f"| `{signal.name}`: {signal.title} | {signal.unit} | {' | '.join(cells)} | {signal.without} |")
    return [*lines, ""]


_MACHINES = """What a server does not say of itself, the machine's exporters do. Their series carry other labels, so a
service names those that single out its container, GPU or machine (equality only):

```yaml
services:
  - name: ranker
    exporters:
      cadvisor: {namespace: prod, container: ranker}
      dcgm: {Hostname: gpu-7}
```

Each signal is one more query for each service that asks for it. An exporter that is named goes
before what the server's preset reads; of two exporters the first counts."""


def nameable(cause: Cause, preset: str) -> bool:
    """Whether a preset reads what a cause is told by."""
    signals = presets.OURS[preset].signals
    return any(set(group) <= set(signals) for group in cause.told_by)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
