"""How releases are watched: the section `releases` of services.yaml."""

from __future__ import annotations

from pydantic import Field

from tuning.settings_base import Section


class ReleaseSettings(Section):
    """Changes of the version that serves: which versions are proven, and how a new one is compared."""

    proven_after_s: float = Field(600.0, gt=0)
    """A version counts as proven once the service has kept its promises under it for this long; a release is never
    reverted to a version that is not."""

    bake_s: float = Field(1800.0, ge=60)
    """Every change of version is compared with what was before it over this long, and the verdict told."""
