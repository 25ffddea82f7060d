"""Protocols: what a request is and whether its answer is one, one file each."""

from __future__ import annotations

from detection.errors import ConfigError
from slotune.stress.protocols._port import Answer, Ask, Protocol, Reader, Talk, read_bodies
from slotune.stress.protocols.json_http import JsonHttp
from slotune.stress.protocols.oip import OpenInference
from slotune.stress.protocols.openai import OpenAi

__all__ = ["REGISTRY", "Answer", "Ask", "Protocol", "Reader", "Talk", "get", "read_bodies"]

REGISTRY: dict[str, Protocol] = {"json": JsonHttp(), "oip": OpenInference(), "openai": OpenAi()}


def get(name: str) -> Protocol:
    """The protocol of a name; ConfigError with the known names for any other."""
    try:
        return REGISTRY[name]
    except KeyError:
        raise ConfigError(f"no protocol is called {name!r}; known are: {', '.join(sorted(REGISTRY))}") from None
