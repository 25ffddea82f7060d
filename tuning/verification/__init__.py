"""Verifiers: each judges a change from what was measured before and after it. One file each; sorted."""

from __future__ import annotations

from collections.abc import Callable

from tuning.errors import ConfigError
from tuning.ports import Verifier
from tuning.verification.settings import VerificationSettings


def _before_after(settings: VerificationSettings) -> Verifier:
    # Imported on use: the settings are read wherever a DAG file is parsed, the statistics are not needed there.
    from tuning.verification.before_after import BeforeAfterVerifier

    return BeforeAfterVerifier(settings)


REGISTRY: dict[str, Callable[[VerificationSettings], Verifier]] = {
    "before_after": _before_after,
}


def get(name: str) -> Callable[[VerificationSettings], Verifier]:
    """The factory of this name; ConfigError with the known names otherwise."""
    try:
        return REGISTRY[name]
    except KeyError:
        known = ", ".join(REGISTRY)
        raise ConfigError(
            f"unknown verification method {name!r}; known: {known}", where="verification.method"
        ) from None
