"""Who is told: the section `mail` of services.yaml."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from tuning.settings_base import ConnectionName, Section


class MailSettings(Section):
    """Who reads the reports."""

    to: tuple[str, ...] = ()
    """Recipients. With none, reports are kept in the ledger and logged, and nobody is mailed."""

    sender: str = "slotune@localhost"
    """The From address."""

    connection: ConnectionName = "smtp_default"
    """SMTP connection: host, port, login, password; extra: disable_ssl, disable_tls, timeout, ca, verify, cert, key."""

    airflow_url: str | None = None
    """Base address of Airflow's UI for the links in a mail; default: Airflow's own [api] base_url."""

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        for address in (*self.to, self.sender):
            if address.count("@") != 1 or any(c in address for c in " \r\n<>,"):
                raise ValueError(f"{address!r} is not a mail address")
        return self
