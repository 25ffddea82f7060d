"""Run as a process of its own by test_page.py: Airflow's API application with slotune's plugin, asked as several people."""

from __future__ import annotations

import json
import subprocess
import sys

from airflow.api_fastapi.app import create_app
from airflow.utils import db
from fastapi.testclient import TestClient

db.initdb()


def reserialize() -> None:
    """The DAGs as a DAG processor would have left them."""
    subprocess.run([sys.executable, "-m", "airflow", "dags", "reserialize"], check=True, capture_output=True)


requests = [(*one, None)[:4] for one in json.loads(sys.argv[1])]
if any("dags" in path or path.endswith("/start") for _, _, path, _ in requests):
    reserialize()
answers = []
with TestClient(create_app(), base_url="http://127.0.0.1") as client:
    tokens = {None: None}
    for name in {who for who, _, _, _ in requests if who is not None}:
        made = client.post("/auth/token", json={"username": name, "password": name})
        tokens[name] = made.json()["access_token"]
    for who, method, path, sent in requests:
        headers = {"Authorization": f"Bearer {tokens[who]}"} if tokens[who] else {}
        body = {"json": sent} if path.startswith("/api") else {"data": sent}
        answer = client.request(method, path, headers=headers, follow_redirects=False, **body)
        answers.append([answer.status_code, answer.text[:20_000]])
print("ANSWERS" + json.dumps(answers))
