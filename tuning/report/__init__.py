"""From a Report to what people read: subject, HTML, plain text and plot. No I/O; every outside text is escaped."""

from tuning.report.message import Mail, render

__all__ = ["Mail", "render"]
