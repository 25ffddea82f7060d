"""HTTP with a JSON body: POST of --body to --path; the answer is JSON, or empty."""

from __future__ import annotations

from collections.abc import Sequence

from detection.errors import ConfigError
from slotune.stress.protocols._port import Answer, Ask, Reader, Talk, bodies, is_json, request


class JsonHttp:
    """One request, one answer."""

    name = "json"
    objectives: tuple[str, ...] = ("p95_ms",)
    streams = False

    async def requests(self, ask: Ask, talk: Talk) -> Sequence[bytes]:
        if not ask.path:
            raise ConfigError("with --protocol json give --path, such as --path /predict")
        if not ask.bodies:
            raise ConfigError("with --protocol json give --body FILE: what is to be sent")
        made = list(bodies(ask))
        if not is_json(made[0]):
            raise ConfigError("the file of --body is not JSON (after its {{places}} were filled in)")
        return [request(ask, "POST", ask.path, body) for body in made]

    def reader(self) -> Reader:
        raise NotImplementedError("answers of this protocol are not streamed")

    def check(self, answer: Answer) -> str | None:
        return None if not answer.body.strip() or is_json(answer.body) else "its answer is not JSON"
