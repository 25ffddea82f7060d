"""Prometheus, mailbox, replicas, fleet control and child processes: the real ones."""

from __future__ import annotations

import os
import shutil
import signal
import smtplib
import subprocess
import sys
import time
from email.message import EmailMessage
from pathlib import Path

import psutil
import pytest

from demo import web
from demo.control import FleetControl
from demo.mailbox import Mailbox
from demo.processes import Child, DemoError, free_port, sweep, wait_until
from demo.prometheus import Prometheus, Target
from demo.replicas import Replica, Replicas
from demo.stack import Stack

pytestmark = pytest.mark.server


def _mail(subject: str = "proof") -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, "slotune@example.org", "oncall@example.org"
    mail.set_content("P95 is back")
    mail.add_alternative('<p><img src="cid:p95@x"><img src="cid:gone@x"></p>', subtype="html")
    mail.get_payload()[1].add_related(b"\x89PNG", "image", "png", cid="<p95@x>", filename="p95.png")
    return mail


def test_mailbox_keeps_mails_and_refuses_when_told(tmp_path: Path):
    mailbox = Mailbox(tmp_path)
    mailbox.start()
    try:
        with smtplib.SMTP("127.0.0.1", mailbox.port) as smtp:
            smtp.send_message(_mail())
            mailbox.refuse("451 4.3.0 try later")
            with pytest.raises(smtplib.SMTPDataError, match="try later"):
                smtp.send_message(_mail("lost"))
            mailbox.refuse(None)
            smtp.send_message(_mail("second"))
    finally:
        mailbox.stop()
    assert [m.subject for m in mailbox.mails] == ["proof", "second"]
    first = mailbox.mails[0]
    assert first.to == ("oncall@example.org",)
    assert first.text.strip() == "P95 is back"
    assert first.html.read_text().strip() == '<p><img src="data:image/png;base64,iVBORw=="><img src="cid:gone@x"></p>'
    assert b"Subject: proof" in first.eml.read_bytes()
    with pytest.raises(OSError):
        smtplib.SMTP("127.0.0.1", mailbox.port, timeout=1)


def test_without_prometheus_a_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DemoError, match="apt-get install"):
        Prometheus(tmp_path / "prometheus.log")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not on PATH")
def test_replicas_come_go_are_scraped_and_share_one_config(tmp_path: Path):
    prometheus = Prometheus(tmp_path / "prometheus.log")
    seen: list[list[str]] = []

    def changed(running: list[Replica]) -> None:
        seen.append([r.name for r in running])
        for replica in running:
            fleet.teach(replica.address)
        prometheus.targets([Target(r.address, "ranker", r.name) for r in running])

    replicas = Replicas("demo", "ranker", ["--emulated"], tmp_path, changed)
    fleet = FleetControl(lambda: [r.address for r in replicas.running])
    fleet.start()
    try:
        prometheus.start()
        assert fleet.get()[0] == 503
        replicas.on_scale("demo", "other", 5)
        replicas.on_scale("demo", "ranker", 2)
        wait_until(lambda: replicas.ready("demo", "ranker") == 2, 20.0, "two replicas")
        assert replicas.ready("demo", "other") == 0
        assert web.call(f"{fleet.url}/config", {"batch_size": 4, "max_queue": 12})["batch_size"] == 4
        wait_until(lambda: prometheus.value('count(up{service="ranker"} == 1)') == 2, 20.0, "two targets up")
        replicas.on_scale("demo", "ranker", 3)
        wait_until(lambda: replicas.ready("demo", "ranker") == 3, 20.0, "three replicas")
        newest = replicas.running[-1]
        assert newest.name == "ranker-3"
        wait_until(lambda: web.call(f"http://{newest.address}/config")["batch_size"] == 4, 5.0, "the newest being told")
        assert web.call(f"http://{newest.address}/config")["max_queue"] == 12
        replicas.running[0].child.stop()
        wait_until(lambda: seen[-1] == ["ranker-2", "ranker-3", "ranker-4"], 20.0, "a dead replica being replaced")
        replicas.on_scale("demo", "ranker", 1)
        wait_until(lambda: replicas.ready("demo", "ranker") == 1, 10.0, "one replica")
        wait_until(lambda: prometheus.value("count(up == 1)") == 1, 20.0, "one target up")
        pids = [r.child.pid for r in replicas.running]
    finally:
        fleet.stop()
        replicas.stop()
        prometheus.stop()
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not web.answers(f"{prometheus.url}/-/ready")


def test_child_that_ends_is_reported_with_its_log(tmp_path: Path):
    child = Child("helper", [sys.executable, "-c", "print('out of luck'); raise SystemExit(3)"], tmp_path / "log")
    wait_until(lambda: not child.alive, 10.0, "end")
    with pytest.raises(DemoError, match=r"helper ended with status 3(.|\n)*out of luck"):
        child.check()


def test_stop_ends_a_child_that_does_not_listen_and_its_children(tmp_path: Path):
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(p.pid, flush=True);"
        "time.sleep(600)"
    )
    child = Child("deaf", [sys.executable, "-c", code], tmp_path / "log")
    wait_until(lambda: (tmp_path / "log").read_text().endswith("\n"), 10.0, "grandchild")
    grandchild = int((tmp_path / "log").read_text())
    child.stop(grace_s=0.3)
    assert not child.alive
    wait_until(lambda: not _runs(grandchild), 5.0, "the grandchild's end")


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path; from demo.processes import Child;"
        f"c = Child('x', [sys.executable, '-c', 'import time; time.sleep(600)'], Path({str(tmp_path / 'log')!r}));"
        "print(c.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert _runs(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not _runs(pid), 5.0, "the child's end")


def test_sweep_finds_what_was_forgotten(tmp_path: Path):
    others = [p.pid for p in psutil.Process().children(recursive=True)]
    child = Child("forgotten", ["sleep", "600"], tmp_path / "log")
    assert sweep(keep=others) == [f"sleep ({child.pid})"]
    assert not child.alive


def test_stack_starts_and_stops_the_service_without_a_trace(tmp_path: Path):
    from demo.scenarios import SCENARIOS

    stack = Stack(Path(__file__).parents[2], tmp_path, SCENARIOS["replicas"], seed=1)
    children = {p.pid for p in psutil.Process().children(recursive=True)}
    try:
        stack.start_mailbox()
        stack.start_prometheus()
        stack.start_service()
        stack.start_load(20.0)
        wait_until(lambda: stack.load_out.is_file() and stack.load_out.read_text().count("\n") >= 3, 20.0, "load")
        now = stack.settings_now()
        assert (now["replicas"], now["batch_size"]) == (2, 8)
        stack.check()
    finally:
        for name, stop in reversed(stack._stops):
            assert name
            stop()
    left = {p.pid for p in psutil.Process().children(recursive=True)} - children
    assert not left
    assert web.answers(f"http://127.0.0.1:{free_port()}/") is False


def test_terminated_demo_leaves_no_process(tmp_path: Path):
    """SIGTERM while it sets up: everything below it ends."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "demo", "--scenario", "replicas", "--once", "--home", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        log = tmp_path / "run" / "logs" / "load.log"
        wait_until(log.exists, 60.0, "load being started")
        family = psutil.Process(demo.pid).children(recursive=True)
        assert len(family) >= 4
        time.sleep(1.0)
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 130
    finally:
        if demo.poll() is None:
            demo.kill()
    assert [p for p in family if _runs(p.pid)] == []


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
