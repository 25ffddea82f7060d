"""Run as a process of its own by test_page.py: Airflow's API application with slotune's plugin, asked as several people."""

from __future__ import annotations

import json
import sys

from airflow.api_fastapi.app import create_app
from airflow.utils import db
from fastapi.testclient import TestClient

db.initdb()
requests = json.loads(sys.argv[1])
answers = []
with TestClient(create_app(), base_url="http://127.0.0.1") as client:
    tokens = {None: None}
    for name in {who for who, _, _ in requests if who is not None}:
        made = client.post("/auth/token", json={"username": name, "password": name})
        tokens[name] = made.json()["access_token"]
    for who, method, path in requests:
        headers = {"Authorization": f"Bearer {tokens[who]}"} if tokens[who] else {}
        answer = client.request(method, path, headers=headers)
        answers.append([answer.status_code, answer.text[:20_000]])
print("ANSWERS" + json.dumps(answers))
