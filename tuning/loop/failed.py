"""A step of the loop that failed is told, at most once an hour each, also when the ledger is what is down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from detection.model import make_id
from tuning.errors import LedgerUnavailable
from tuning.loop import post
from tuning.loop.parts import Telling
from tuning.policies.delivery import wants
from tuning.report.notice_mail import notice_mail

_log = logging.getLogger(__name__)
HOUR_S = 3600.0
LONGEST = 500


def tell_failure(
    telling: Telling, what: str, reason: str, at_s: float, *, url: str = "", first: Callable[[str], bool]
) -> str:
    """Tell that `what` failed; what came of it in words. first: whether a message of this id was not told from here
    before, asked where the ledger cannot say. Never raises because of a channel or the ledger."""
    mail_id = make_id("loop failure", what, int(at_s // HOUR_S))
    lines = [
        " ".join(reason.split())[:LONGEST] or "It says nothing about why.",
        "It is tried again with the next run. This is told at most once an hour.",
    ]
    mail = notice_mail(
        mail_id, f"{what} failed", lines, at_s, event="loop_failure", urgent=True, tone="bad", url=url or telling.page
    )
    mail = replace(mail, about=make_id("loop failure", what), ends_s=at_s + 2 * HOUR_S)
    try:
        return post.post(telling, mail, at_s)
    except LedgerUnavailable as error:
        _log.warning("the ledger cannot keep that %s failed: %s; it is told without", what, error)
    if not first(mail_id):
        return "told before"
    about = post.topic(telling, mail)
    takers = [notifier for channel, notifier in post.channels(telling) if wants(channel, about)]
    return "; ".join(f"{notifier.name}: {post.told(notifier, lambda: mail)[1]}" for notifier in takers)
