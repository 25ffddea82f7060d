"""A real PostgreSQL server for tests: one per test process, in a temporary folder, on a free port of 127.0.0.1."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

_NAMES = itertools.count(1)


def binaries() -> Path | None:
    """The newest installed server's folder of programs, None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return Path(on_path).parent if on_path else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_ordinary_user() -> list[str]:
    """PostgreSQL refuses to run as root: then the command runs as `postgres`, or as `nobody`."""
    if os.geteuid() != 0:
        return []
    users = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in users else "nobody"
    return ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]


@functools.cache
def server() -> tuple[str, int]:
    """Start the server once; (admin URL, port). Skips the test where no server is installed."""
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed: scripts/system-packages finds or installs one")
    folder = Path(tempfile.mkdtemp(prefix="slotune-pg-"))
    prefix = _as_ordinary_user()
    if prefix:
        user = prefix[1].split("=")[1]
        shutil.chown(folder, user)
    port = _free_port()
    data = folder / "data"
    subprocess.run(
        [*prefix, programs / "initdb", "-D", data, "-U", "slotune", "-A", "trust", "--no-sync", "-E", "UTF8"],
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    options = [f"-p{port}", "-h127.0.0.1", f"-k{folder}", "-F"]
    process = subprocess.Popen(
        [*prefix, programs / "postgres", "-D", data, *options], cwd=folder, stderr=subprocess.DEVNULL
    )
    atexit.register(_stop, process, folder)
    url = f"postgresql+psycopg2://slotune@127.0.0.1:{port}/postgres"
    _wait(url, process)
    return url, port


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    for _ in range(150):
        try:
            engine.connect().close()
            return
        except sa.exc.OperationalError:
            if process.poll() is not None:
                raise
            time.sleep(0.1)
    raise TimeoutError("PostgreSQL did not start in 15 s")


def _stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def fresh_database() -> str:
    """The URL of a new empty database on the server."""
    admin, port = server()
    name = f"ledger_{os.getpid()}_{next(_NAMES)}"
    with sa.create_engine(admin, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return f"postgresql://slotune@127.0.0.1:{port}/{name}"
