"""The variants of a lever: their names in plans against what a server calls them. Pure."""

from __future__ import annotations

from tuning.actuators.settings.variant import VariantOptions
from tuning.errors import ConfigError
from tuning.model import Setting

LEVER = "variant"


def name_of(given: VariantOptions, value: str) -> str:
    """The variant that a server calls so; the value itself where services.yaml knows none."""
    return next((one.name for one in given.variants if (one.value or one.name) == value), value)


def value_of(given: VariantOptions, name: str) -> str:
    """What a server calls a variant. ConfigError: there is none of that name."""
    found = next((one.value or one.name for one in given.variants if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in given.variants)
        raise ConfigError(f"there is no variant {name!r}; known: {known}")
    return found


def known(given: VariantOptions, setting: Setting) -> Setting:
    """The setting, with why nothing can be planned from it where what serves is none of the variants."""
    serves = str(setting.values[LEVER])
    if any(one.name == serves for one in given.variants):
        return setting
    names = ", ".join(one.name for one in given.variants)
    why = f"{serves} serves, which is none of the variants in services.yaml ({names}): somebody else chose it"
    return setting.model_copy(update={"useless": why})
