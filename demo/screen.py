"""What the demo says: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

PLAIN_EVERY_S = 10.0
PLAIN_WIDTH = 140


class Screen:
    """`say` prints for good; `now` shows what is going on (rewritten on a terminal, every 10 s elsewhere)."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console.width = PLAIN_WIDTH
        self._clock, self._started = clock, clock()
        self._live: Live | None = None
        columns = TextColumn("{task.description:<15}"), BarColumn(bar_width=12), TextColumn("{task.fields[note]}")
        self._bar = Progress(*columns)
        self._task: TaskID = self._bar.add_task("", total=1.0, note="")
        self._last_plain = -PLAIN_EVERY_S
        if self._console.is_terminal:
            self._live = Live(self._bar, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def say(self, text: str = "") -> None:
        elapsed = self._clock() - self._started
        self._console.print(f"[dim]{elapsed:6.1f} s[/]  {escape(text)}" if text else "")

    def now(self, phase: str, done: float, note: str) -> None:
        """done: 0..1, how much of the phase's time is over."""
        if self._live is not None:
            self._bar.update(self._task, description=phase, completed=min(1.0, done), note=note)
        elif self._clock() - self._last_plain >= PLAIN_EVERY_S:
            self._last_plain = self._clock()
            self.say(f"{phase}: {note}")

    def table(self, title: str, rows: list[tuple[str, ...]], header: tuple[str, ...]) -> None:
        table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
        for name in header:
            table.add_column(name)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self._console.print()
        self._console.print(table)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()
