"""What only a database can get wrong: first starts, locks, full disks, other versions, and who may change a record."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.postgresql import fresh_database
from tuning.errors import ChangeAlreadyOpen, ConfigError, LedgerUnavailable
from tuning.ledger import SqlLedger
from tuning.ledger.engine import parse_url, shown
from tuning.ledger.reader import open_reader
from tuning.ledger.schema import HEAD, metadata
from tuning.ledger.statements import select
from tuning.model import Change, Diagnosis, OpenChange, Option, Plan, Record
from tuning.query import Query

WRITER = """
import sys
from tuning.ledger import SqlLedger
from tuning.model import Change, Diagnosis, OpenChange, Option, Plan, Record
ledger = SqlLedger.open(sys.argv[1])
for n in range(int(sys.argv[3])):
    ledger.put(Record(id=f"{sys.argv[2]}-{n}", kind="hold", service="s", at_s=float(n), body={}))
    print(n, flush=True)
"""


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def record(record_id: str = "r1") -> Record:
    return Record(id=record_id, kind="hold", service="s", at_s=1.0, body={"a": 1})


def start(database: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, database, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_ledgers_folder_is_made(tmp_path: Path) -> None:
    ledger = SqlLedger.open(f"sqlite:///{tmp_path}/a/b/ledger.db")
    assert ledger.put(record())


def test_opening_again_keeps_everything(tmp_path: Path) -> None:
    SqlLedger.open(url(tmp_path)).put(record())
    assert SqlLedger.open(url(tmp_path)).get("r1") == record()


def test_sqlite_writes_ahead_and_flushes_every_commit(tmp_path: Path) -> None:
    ledger = SqlLedger.open(url(tmp_path))
    with ledger._read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


@pytest.mark.server
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_first_starts_at_once_do_not_clash(tmp_path: Path, backend: str) -> None:
    database = url(tmp_path) if backend == "sqlite" else fresh_database()
    writers = [start(database, f"w{n}", 5) for n in range(4)]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    assert len(SqlLedger.open(database).find(Query())) == 20


@pytest.mark.server
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    writer = start(url(tmp_path), "w", 10_000)
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(20)]
    writer.kill()
    rest = writer.stdout.read()
    writer.wait()
    acknowledged = int([*said, *rest.splitlines()][-1])
    found = {r.id for r in SqlLedger.open(url(tmp_path)).find(Query())}
    assert {f"w-{n}" for n in range(acknowledged + 1)} <= found
    assert len(found) <= acknowledged + 2
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("statement", ["UPDATE records SET body = '{}'", "DELETE FROM records"])
@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def test_records_only_grow(tmp_path: Path, backend: str, statement: str) -> None:
    ledger = SqlLedger.open(url(tmp_path) if backend == "sqlite" else fresh_database())
    ledger.put(record())
    with pytest.raises(LedgerUnavailable, match="refuses to change or delete"), ledger._write() as connection:
        connection.exec_driver_sql(statement)
    assert ledger.get("r1") == record()


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def test_the_migrations_make_what_the_program_expects(tmp_path: Path, backend: str) -> None:
    ledger = SqlLedger.open(url(tmp_path) if backend == "sqlite" else fresh_database())
    found = sa.inspect(ledger._engine)
    for table in metadata.sorted_tables:
        assert {c["name"] for c in found.get_columns(table.name)} == {c.name for c in table.columns}
        assert {i["name"] for i in found.get_indexes(table.name)} >= {i.name for i in table.indexes}
    with ledger._read() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM slotune_alembic_version").scalar() == HEAD


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
@pytest.mark.parametrize(("usable_from", "opens"), [("9999", False), (HEAD, True)])
def test_a_newer_ledger_is_used_where_it_names_this_program(
    tmp_path: Path, backend: str, usable_from: str, opens: bool
) -> None:
    """A worker of the newer version has migrated it: columns and tables that this program does not know are there."""
    database = url(tmp_path) if backend == "sqlite" else fresh_database()
    ledger = SqlLedger.open(database)
    ledger.put(record())
    with ledger._write() as connection:
        connection.exec_driver_sql("UPDATE slotune_alembic_version SET version_num = '9999'")
        connection.exec_driver_sql("ALTER TABLE records ADD COLUMN shard TEXT")
        connection.exec_driver_sql("ALTER TABLE changes ADD COLUMN shard TEXT")
    ledger.put_blob("schema/usable-from", usable_from.encode(), at_s=0.0)
    if not opens:
        with pytest.raises(LedgerUnavailable, match="newer slotune"):
            SqlLedger.open(database)
        return
    older = SqlLedger.open(database)
    assert older.put(record("r2"))
    assert {r.id for r in older.find(Query())} == {"r1", "r2"}


def test_a_ledger_of_an_older_version_is_brought_up_with_what_it_holds(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    import tuning.ledger

    engine = sa.create_engine(url(tmp_path))
    config = Config()
    config.set_main_option("script_location", str(Path(tuning.ledger.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO records (id, kind, phase, service, at_s, body) VALUES ('r1', 'hold', 'result', 's', 1, '{\"a\": 1}')"
        )
    engine.dispose()
    assert SqlLedger.open(url(tmp_path)).get("r1") == record()


def test_a_ledger_without_tables_says_so(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="has no tables yet"):
        SqlLedger(url(tmp_path)).put(record())


def test_a_locked_ledger_says_so_and_writes_nothing(tmp_path: Path) -> None:
    SqlLedger.open(url(tmp_path))
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    impatient = SqlLedger(url(tmp_path), timeout_s=0.05)
    with pytest.raises(LedgerUnavailable, match="is locked by another process"):
        impatient.put(record())
    assert impatient.get("r1") is None, "readers are not held up"
    holder.execute("ROLLBACK")
    assert impatient.put(record())


def test_a_full_disk_says_so_and_leaves_no_half_record(tmp_path: Path) -> None:
    ledger = SqlLedger.open(url(tmp_path))
    ledger.put(record())
    with pytest.raises(LedgerUnavailable, match="disk is full"), ledger._write() as connection:
        # SQLite's own limit on the file's size behaves as a full disk does
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        connection.execute(
            sa.text("INSERT INTO blobs (key, data, at_s) VALUES ('k', :data, 0)"), {"data": os.urandom(1_000_000)}
        )
    assert ledger.get_blob("k") is None
    assert ledger.get("r1") == record()


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is no database, " * 100)
    with pytest.raises(LedgerUnavailable, match="damaged"):
        SqlLedger.open(url(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LedgerUnavailable, match="cannot be"):
        SqlLedger.open(f"sqlite:///{tmp_path}/x/ledger.db")


def test_a_server_that_is_down_says_so_without_its_password() -> None:
    down = SqlLedger("postgresql://user:s3cret@127.0.0.1:1/db?password=s3cret", timeout_s=2)
    with pytest.raises(LedgerUnavailable, match="cannot be reached") as raised:
        down.get("r1")
    assert "s3cret" not in str(raised.value)
    assert "s3cret" not in repr(down)


@pytest.mark.parametrize("wrong", ["", "ledger.db", "mysql://u:s3cret@h/d", "postgresql://u:s3cret@h:port/d"])
def test_a_wrong_url_is_a_setting_to_put_right(wrong: str) -> None:
    with pytest.raises(ConfigError, match="SLOTUNE_LEDGER_URL") as raised:
        SqlLedger(wrong)
    assert "s3cret" not in str(raised.value)


def test_urls_mean_what_people_write() -> None:
    assert parse_url("postgresql://h/d").drivername == "postgresql+psycopg2"
    assert shown(parse_url("postgresql://u:s3cret@h/d?sslpassword=s3cret")) == "postgresql+psycopg2://u:***@h/d"


def test_reading_without_a_ledger_is_not_an_empty_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="nothing has been recorded"):
        open_reader(url(tmp_path))
    assert not (tmp_path / "ledger.db").exists()


def test_the_quick_reader_reads_what_the_ledger_reads(tmp_path: Path) -> None:
    ledger = SqlLedger.open(url(tmp_path))
    for n in range(12):
        kind = "keep" if n % 2 else "hold"
        ledger.put(
            Record(
                id=f"r{n}", kind=kind, service=f"s{n % 3}", incident_id=f"i{n % 4}", at_s=float(n // 2), body={"n": n}
            )
        )
    quick = open_reader(url(tmp_path))

    def ids(lines: object) -> list[str]:
        return [line.id for line in lines]  # type: ignore[attr-defined]

    for query in (
        Query(limit=5),
        Query(kinds=("keep",)),
        Query(services=("s1",), kinds=("hold",)),
        Query(incident_ids=("i1", "i2"), kinds=("keep",)),
        Query(since_s=3.0, until_s=4.0),
        Query(ids=("r1", "r2"), bodies=False),
    ):
        assert ids(quick.find(query)) == ids(ledger.find(query)) != []
    assert [ids(p) for p in quick.pages(size=5)] == [ids(p) for p in ledger.pages(size=5)]
    found = quick.get("r3")
    assert found is not None
    assert found.body == {"n": 3}
    assert quick.get("nothing") is None


def test_bodies_of_any_text_come_back(tmp_path: Path) -> None:
    ledger = SqlLedger.open(url(tmp_path))
    text = "'; DROP TABLE records; -- \ud800 <script> \U0001f600 \x00"
    ledger.put(Record(id="r1", kind="hold", service="s'", at_s=1.0, body={"text": text}))
    found = ledger.get("r1")
    assert found is not None
    assert found.body == {"text": text}
    assert found.service == "s'"


@pytest.mark.parametrize("body", ["", "no JSON", "[1, 2]", "[" * 100_000, "null"])
def test_a_record_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = SqlLedger.open(url(tmp_path))
    ledger.put(record("good"))
    with ledger._write() as connection:
        connection.execute(
            sa.text("INSERT INTO records (id, kind, phase, service, at_s, body) VALUES ('bad', 'hold', 'result', 's', 2, :b)"),
            {"b": body},
        )
    for reader in (ledger, open_reader(url(tmp_path))):
        caplog.clear()
        assert [r.id for r in reader.find(Query())] == ["good"]
        assert [[r.id for r in page] for page in reader.pages()] == [["good"]]
        assert reader.get("bad") is None
        assert "record bad of s cannot be read" in caplog.text


def opened(ledger: SqlLedger, plan_id: str, service: str) -> OpenChange:
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    plan = Plan(
        id=plan_id, incident_id="i", service=service, decided_at_s=1.0, mode="act", diagnosis=Diagnosis(cause="x"),
        chosen=Option(changes=(change,)),
    )  # fmt: skip
    claim = OpenChange(plan_id=plan_id, service=service, incident_id="i", state="intended", plan=plan, opened_at_s=1.0)
    ledger.open_change(claim, record(f"{plan_id}:intent"))
    return claim


def test_a_plan_of_a_newer_slotune_is_read_without_what_is_not_known(tmp_path: Path) -> None:
    ledger = SqlLedger.open(url(tmp_path))
    claim = opened(ledger, "p1", "ranker")
    with ledger._write() as connection:
        connection.exec_driver_sql("""UPDATE changes SET plan = replace(plan, '{"id"', '{"shard":"eu","id"')""")
        connection.exec_driver_sql("""UPDATE changes SET plan = replace(plan, '{"lever"', '{"why":"x","lever"')""")
    assert ledger.open_changes() == [claim]


def test_a_change_that_cannot_be_read_is_named_and_still_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = SqlLedger.open(url(tmp_path))
    opened(ledger, "p1", "ranker")
    other = opened(ledger, "p2", "other")
    with ledger._write() as connection:
        connection.exec_driver_sql("UPDATE changes SET plan = 'no JSON' WHERE plan_id = 'p1'")
    assert ledger.open_changes() == [other]
    assert "open change p1 of ranker cannot be read" in caplog.text
    for reader in (ledger, open_reader(url(tmp_path))):
        assert [(line.plan_id, line.service) for line in reader.open_lines()] == [("p1", "ranker"), ("p2", "other")]
    assert {u.plan_id for u in ledger.standing(2.0, 3600.0).unproven} == {"p1", "p2"}
    with pytest.raises(ChangeAlreadyOpen, match="plan p1, not proven yet"):
        opened(ledger, "p3", "ranker")


def test_the_receipts_of_one_service_are_found_by_the_service(tmp_path: Path) -> None:
    """Guards ask this for every plan: by kind and phase it would read every receipt that there ever was."""
    query = Query(kinds=("adjust_batch_size", "scale_replicas", "order"), services=("ranker", ""), phase="result")
    SqlLedger.open(url(tmp_path))
    text, values = select(query, "sqlite")
    (file,) = tmp_path.rglob("*.db")
    with sqlite3.connect(file) as connection:
        steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
    assert any("records_service_kind_at (service=? AND kind=?)" in step for step in steps), steps
