"""PostgreSQL and Redis for the demo on Celery: real servers on loopback, ordinary users, folders of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from demo.processes import LOOPBACK, Child, DemoError, free_port, wait_until


class PostgreSql:
    """start(), create(name), stop(); address(name): where a database is, or will be."""

    def __init__(self, log: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        on_path = shutil.which("pg_ctl")
        if not found and on_path is None:
            raise DemoError("PostgreSQL is not installed (Debian: apt-get install --no-install-recommends postgresql)")
        self._programs = found[-1] if found else Path(str(on_path)).parent
        self._folder = Path(tempfile.mkdtemp(prefix="slotune-postgresql-"))
        self._log, self._port = log, free_port()
        self._child: Child | None = None

    def start(self) -> None:
        user = _ordinary_user("postgres")
        data = self._folder / "data"
        if user:
            shutil.chown(self._folder, user)
        subprocess.run(
            [self._programs / "initdb", "-D", data, "-U", "slotune", "-A", "trust", "--no-sync", "-E", "UTF8"],
            check=True, cwd=self._folder, stdout=subprocess.DEVNULL, user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid, extra_groups=None if user is None else [],
        )  # fmt: skip
        self._child = Child(
            "PostgreSQL",
            [self._programs / "postgres", "-D", data, f"-p{self._port}", f"-h{LOOPBACK}", f"-k{self._folder}", "-F"],
            self._log, cwd=self._folder, user=user,
            stop_signal=signal.SIGINT,  # "fast": at SIGTERM it waits for its clients
        )  # fmt: skip
        wait_until(self._answers, 60.0, "PostgreSQL becoming ready")

    def _answers(self) -> bool:
        self.check()
        command = [self._programs / "pg_isready", "-q", "-h", LOOPBACK, f"-p{self._port}"]
        return subprocess.run(command, check=False).returncode == 0

    def create(self, name: str) -> None:
        """An empty database."""
        command = [self._programs / "createdb", "-h", LOOPBACK, f"-p{self._port}", "-U", "slotune", name]
        subprocess.run(command, check=True)

    def address(self, name: str) -> str:
        """user@host:port/name: a database URL without its scheme."""
        return f"slotune@{LOOPBACK}:{self._port}/{name}"

    def check(self) -> None:
        if self._child is not None:
            self._child.check()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class Redis:
    """start(), url, stop(). Keeps nothing on disk."""

    def __init__(self, log: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise DemoError("Redis is not installed (Debian: apt-get install --no-install-recommends redis-server)")
        self._program, self._log, self._port = program, log, free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="slotune-redis-"))
        self.url = f"redis://{LOOPBACK}:{self._port}/0"
        self._child: Child | None = None

    def start(self) -> None:
        user = _ordinary_user("redis")
        if user:
            shutil.chown(self._folder, user)
        options = ["--bind", LOOPBACK, "--port", str(self._port), "--save", "", "--appendonly", "no"]
        self._child = Child(
            "Redis", [self._program, *options, "--dir", self._folder], self._log, cwd=self._folder, user=user
        )
        wait_until(self._answers, 30.0, "Redis becoming ready")

    def _answers(self) -> bool:
        self.check()
        try:
            with socket.create_connection((LOOPBACK, self._port), timeout=1.0) as peer:
                peer.sendall(b"PING\r\n")
                return peer.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def check(self) -> None:
        if self._child is not None:
            self._child.check()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _ordinary_user(preferred: str) -> str | None:
    """Whom to run as: nobody else when we are no root ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return preferred if preferred in names else "nobody"
