"""The releases of a service: from which version to which, by whose hands, and what the comparison came to."""

from __future__ import annotations

from dataclasses import dataclass

from slotune.views.reading import Reading
from tuning.query import Query
from tuning.releases import RELEASE, VERDICT

DAY_S = 86_400.0


@dataclass(frozen=True)
class ReleaseRow:
    """hands: "slotune" or "others". verdict, sentence: "" until the new version has baked."""

    at_s: float
    old: str
    new: str
    hands: str
    verdict: str
    sentence: str

    @property
    def tone(self) -> str:
        return {"worse": "bad", "same": "good", "better": "good"}.get(self.verdict, "calm")


def of_service(reading: Reading, service: str, *, days: float = 90.0, limit: int = 20) -> list[ReleaseRow]:
    """The newest releases of one service, newest first."""
    since_s = reading.now_s - days * DAY_S
    lines = reading.reader.find(Query(kinds=(RELEASE, VERDICT), services=(service,), since_s=since_s))
    verdicts = {str(line.parent_id): line.body for line in lines if line.kind == VERDICT}
    rows = []
    for line in lines:
        if line.kind != RELEASE:
            continue
        body, told = line.body, verdicts.get(line.id, {})
        at_s = body.get("at_s")
        rows.append(
            ReleaseRow(
                at_s=float(at_s) if isinstance(at_s, int | float) else line.at_s,
                old=str(body.get("old", "")),
                new=str(body.get("new", "")),
                hands=str(body.get("hands", "")),
                verdict=str(told.get("verdict", "")),
                sentence=str(told.get("sentence", "")),
            )
        )
    return sorted(rows, key=lambda row: -row.at_s)[:limit]
