"""What can go wrong, on one axis: does trying again later help?

    SlotuneError
    ├── Temporary              try again after `delay_s`; nothing is known to be wrong with the configuration
    │   ├── SourceUnreachable  the metrics source gave no answer (down, slow, 5xx, 429)
    │   │   └── SourcePartial  the answer says of itself that it is not whole
    │   └── Overtaken          another sweep did the work meanwhile; the next sweep goes on
    └── Permanent              a person has to change something first
        ├── ConfigError        services.yaml (or an environment variable) is wrong
        ├── SourceRefused      the source answered, and the answer is no (401, 403, no such page)
        │   └── QueryRefused   this query alone is refused (400, 413, 414, 422, 431); others may be answered
        └── SourceGarbage      the source answered something that is not what it should be
            └── AnswerTooLarge this query's answer is beyond the caps; a narrower one may be answered

Every message is a sentence for a person: what is wrong, where, what to do. Causes are chained with `raise ... from`.
"""

from __future__ import annotations


class SlotuneError(Exception):
    """Root of every error that slotune raises on purpose; `str(error)` is a sentence for a person."""


class Temporary(SlotuneError):
    """Trying again may help. `delay_s` says after how many seconds."""

    def __init__(self, message: str, *, delay_s: float = 30.0) -> None:
        super().__init__(message)
        self.delay_s = delay_s


class Permanent(SlotuneError):
    """Trying again cannot help until a person changes something."""


class ConfigError(Permanent):
    """A setting is wrong. `where` is `file:line` or the path of the setting; both are part of the message."""

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class SourceUnreachable(Temporary):
    """The metrics source gave no usable answer in time."""


class Overtaken(Temporary):
    """What this sweep had begun was replaced by another sweep's: that one goes on, and so does the next."""


class SourceRefused(Permanent):
    """The metrics source answered that it will not answer (credentials, a query it cannot run)."""


class SourceGarbage(Permanent):
    """The metrics source answered something that is not a Prometheus answer."""


class SourcePartial(SourceUnreachable):
    """The metrics source said that its answer lacks something (a store that is down, a limit that was hit)."""


class QueryRefused(SourceRefused):
    """The metrics source will not run this query; it may well run another one."""


class AnswerTooLarge(SourceGarbage):
    """The answer to this query is larger than what is accepted; a narrower query may fit."""
