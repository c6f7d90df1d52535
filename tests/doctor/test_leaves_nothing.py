"""Whatever the application does, the doctor ends in time with a report, and nothing is left of it."""

import os
import sqlite3
import time
from pathlib import Path

import psutil

from .conftest import doctor

HEAD = "import os, sys, time, signal\nfrom flask import Flask\napp = Flask(__name__)\n"
INDEX = "\n@app.get('/')\ndef index():\n    return 'shop'\n"
# The doctor's time beyond its bound: to end the processes it has started, on a busy machine.
SLACK_SECONDS = 25


def leftovers(folder: Path) -> list[str]:
    """Processes that still run in the application's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()) == folder:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def test_an_import_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import time\n\nwhile True:\n    time.sleep(1)\n")
    began = time.monotonic()

    said = doctor(tmp_path, "shop:app", "--json", "--for", "12")

    assert time.monotonic() - began < 12 + SLACK_SECONDS
    assert said.code == 2
    assert ("import-hangs", "shop.py", 4) in said.places()
    assert leftovers(tmp_path) == []


def test_a_route_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        HEAD + INDEX + "\n@app.get('/wait')\ndef wait():\n    while True:\n        time.sleep(1)\n"
    )

    said = doctor(tmp_path, "shop:app", "--json", "--for", "20")

    assert ("route-hangs", "shop.py", 12) in said.places(), said.output
    assert leftovers(tmp_path) == []


def test_a_route_that_computes_for_ever(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(HEAD + "\n@app.get('/spin')\ndef spin():\n    while True:\n        pass\n")

    said = doctor(tmp_path, "shop:app", "--json", "--for", "20")

    assert {rule for rule, _, line in said.places("error") if line in (7, 8)} & {"stops-loop"}, said.output
    assert leftovers(tmp_path) == []


def test_a_worker_that_crashes(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        HEAD + INDEX + "\n@app.get('/crash')\ndef crash():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "\n@app.get('/exit')\ndef leave():\n    os._exit(3)\n"  # with which gunicorn ends, too
        "\n@app.get('/later')\ndef later():\n    return 'served'\n"
    )

    said = doctor(tmp_path, "shop:app", "--json", "--for", "40")

    assert {line for rule, _, line in said.places() if rule == "worker-dies"} == {9, 13}, said.output
    assert "route-hangs" not in said.rules
    assert said.report["routes"][-1]["statuses"] == [200]
    assert said.code == 1
    assert leftovers(tmp_path) == []


def test_daemons_are_ended(tmp_path: Path) -> None:
    daemon = (
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.close(1); os.close(2)\n"
        "        os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)'])\n    os._exit(0)\n"
    )
    (tmp_path / "shop.py").write_text(HEAD + daemon + INDEX)

    said = doctor(tmp_path, "shop:app", "--json", "--for", "20")

    assert said.report["verdict"] != "could not run", said.output
    assert any(one["what"] == "processes" for one in said.report["skipped"])
    assert leftovers(tmp_path) == []


def test_an_application_that_chatters(tmp_path: Path) -> None:
    chatter = "\nfor _ in range(2000):\n    print('x' * 10_000)\n    print('{\"verdict\": 1}', file=sys.stderr)\n"
    (tmp_path / "shop.py").write_text(HEAD + chatter + INDEX)

    said = doctor(tmp_path, "shop:app", "--json", "--for", "20")

    assert said.report["verdict"] == "ready", said.output


def test_neither_files_nor_rows_are_left(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.execute("CREATE TABLE visits (at REAL)")
    connection.close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    writes = (
        "import sqlite3\nfrom pathlib import Path\nHERE = Path(__file__).parent\n"
        "(HERE / 'made').mkdir(exist_ok=True)\n(HERE / 'made' / 'new.txt').write_text('x')\n"
        "(HERE / 'notes.txt').write_text('theirs')\n"
        "\n@app.get('/visit')\ndef visit():\n"
        "    with sqlite3.connect(HERE / 'old.db') as connection:\n"
        "        connection.execute('INSERT INTO visits VALUES (1)')\n"
        "        count = connection.execute('SELECT count(*) FROM visits').fetchone()[0]\n"
        "    sqlite3.connect(HERE / 'new.db').execute('CREATE TABLE IF NOT EXISTS t (x)')\n"
        "    return {'count': count}\n"
    )
    (tmp_path / "shop.py").write_text(HEAD + writes)
    before["shop.py"] = (tmp_path / "shop.py").read_bytes()

    said = doctor(tmp_path, "shop:app", "--json", "--for", "30", "--no-gains")

    assert said.report["routes"][0]["statuses"] == [200], said.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
