"""From values to what people read: subject, HTML, plain text and plots. No I/O; every outside text is escaped."""

from tuning.report.message import render

__all__ = ["render"]
