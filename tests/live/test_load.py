"""`greenroom load` against servers whose behaviour is known: its numbers, verdicts and exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import LONG_WAIT_SECONDS, clean_environment
from tests.live.synthetic import has_ended_as, synthetic

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "greenroom", "load")


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with synthetic() as address:
        yield f"http://{address}"


@dataclass
class Ended:
    code: int
    said: dict[str, Any]
    out: str
    err: str

    def is_code(self, expected: int) -> bool:
        return has_ended_as(expected, self.code, self.said)


def load(tmp_path: Path, *arguments: str, before: tuple[str, ...] = ()) -> Ended:
    file = tmp_path / "result.json"
    file.unlink(missing_ok=True)
    done = subprocess.run(
        [*before, *COMMAND, *arguments, "--json", str(file), "--live", "off"],
        capture_output=True,
        text=True,
        timeout=LONG_WAIT_SECONDS,
        cwd=ROOT,
        env=clean_environment(),
    )
    said = json.loads(file.read_text()) if file.exists() else {}
    return Ended(done.returncode, said, done.stdout, done.stderr)


def test_fixed_delay_is_measured_as_it_is(tmp_path: Path, origin: str) -> None:
    ended = load(
        tmp_path, f"{origin}/fixed?ms=100", "--rate", "100", "--for", "2s", "--expect", "p50<400ms", "--expect",
        "errors<0.1%",
    )  # fmt: skip

    assert ended.is_code(0), ended.out + ended.err
    said = ended.said
    assert said["asked_per_second"] == 100
    assert said["good_per_second"] == pytest.approx(100, rel=0.05)
    assert 100 <= said["p50_ms"] < 400
    assert said["p50_ms"] <= said["p95_ms"] <= said["p99_ms"] <= said["max_ms"]
    assert (said["planned"], said["requests"], said["good"], said["errors"], said["shed"]) == (200, 200, 200, 0, 0)
    assert said["expectations"] == [
        {"text": "p50<400ms", "held": True, "measured": said["p50_ms"]},
        {"text": "errors<0.1%", "held": True, "measured": 0.0},
    ]
    assert sum(row["asked"] for row in said["seconds"]) == sum(row["good"] for row in said["seconds"]) == 200


def test_queue_of_a_server_over_its_capacity_counts_from_the_planned_moment(tmp_path: Path, origin: str) -> None:
    ended = load(
        tmp_path, f"{origin}/capacity?rate=50", "--rate", "100", "--for", "2s", "--arrivals", "constant", "--expect",
        "p99<300ms",
    )  # fmt: skip

    assert ended.is_code(1)
    assert ended.said["good_per_second"] == pytest.approx(50, rel=0.1)
    assert ended.said["good"] == 200
    # The last of 200 is due at 2 s, and is answered at 4 s.
    assert ended.said["max_ms"] == pytest.approx(2000, rel=0.15)
    assert ended.said["p50_ms"] == pytest.approx(1000, rel=0.15)
    assert not ended.said["expectations"][0]["held"]


def test_errors_and_shed_are_kept_apart(tmp_path: Path, origin: str) -> None:
    errors = load(tmp_path, f"{origin}/errors?every=10", "--rate", "100", "--for", "1s", "--expect", "errors<5%")
    shed = load(tmp_path, f"{origin}/shed?rate=50", "--rate", "200", "--for", "2s", "--expect", "errors=0")
    unavailable = load(tmp_path, f"{origin}/unavailable", "--rate", "80", "--for", "250ms", "--expect", "shed=0")

    assert errors.is_code(1)
    assert (errors.said["errors"], errors.said["shed"]) == (10, 0)
    assert errors.said["errors_by_kind"] == {"status 500": 10}
    assert shed.is_code(0)
    assert shed.said["errors"] == 0
    assert shed.said["shed"] == pytest.approx(300, rel=0.1)
    assert shed.said["good_per_second"] == pytest.approx(50, rel=0.15)
    assert shed.said["good"] + shed.said["shed"] == 400
    assert unavailable.is_code(0)
    assert (unavailable.said["errors"], unavailable.said["shed"]) == (20, 0)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/reset?every=1", "connection reset"),
        ("/early", "closed without an answer"),
        ("/short", "answer cut short"),
        ("/garbage", "no HTTP answer"),
        ("/endless", "an answer too large"),
        ("/hang", "timed out"),
        ("/loop", "redirects for ever"),
        ("/away", "redirects to http://example.com"),
    ],
)
def test_bad_answers_are_errors_of_one_kind(tmp_path: Path, origin: str, path: str, kind: str) -> None:
    ended = load(
        tmp_path, f"{origin}{path}", "--rate", "40", "--for", "250ms", "--timeout", "3s", "--largest-answer", "2",
        "--expect", "errors<1%",
    )  # fmt: skip

    assert ended.is_code(1), ended.out + ended.err
    assert ended.said["errors_by_kind"] == {kind: 10}
    assert ended.said["good"] == 0
    assert f"10 x {kind}" in ended.out


def test_each_tenth_that_is_reset_is_an_error(tmp_path: Path, origin: str) -> None:
    ended = load(tmp_path, f"{origin}/reset?every=10&n=1", "--rate", "100", "--for", "1s", "--expect", "errors<1%")

    assert ended.is_code(1)
    assert (ended.said["errors"], ended.said["good"]) == (10, 90)


def test_target_that_gives_no_answer_at_all_could_not_be_loaded(tmp_path: Path, origin: str) -> None:
    ended = load(tmp_path, f"{origin}/garbage", "--rate", "40", "--for", "250ms")

    assert ended.code == 2
    assert "could not run: the target gave no answer at all" in ended.out


def test_target_that_refuses_is_said_in_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        ended = load(tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}/", "--rate", "10")

    assert ended.code == 2
    assert "cannot be reached: Connection refused; start the server, or correct the URL" in ended.err
    assert ended.said == {}


def test_redirects_are_followed_unless_they_are_the_answer(tmp_path: Path, origin: str) -> None:
    followed = load(tmp_path, f"{origin}/there", "--rate", "80", "--for", "250ms", "--check", "body~hello")
    taken = load(tmp_path, f"{origin}/there", "--rate", "80", "--for", "250ms", "--no-follow", "--check", "status=302")

    assert followed.is_code(0)
    assert taken.is_code(0)
    assert followed.said["good"] == taken.said["good"] == 20


def test_method_header_and_body_arrive(tmp_path: Path, origin: str) -> None:
    ended = load(
        tmp_path, f"{origin}/echo?q=a%20b", "--rate", "40", "--for", "250ms", "--method", "PUT", "--header", "X-One: 1",
        "--body", '{"a": 1}', "--check", "json.method=PUT", "--check", "json.headers.x-one=1", "--check",
        'json.body={"a": 1}', "--check", "json.target=/echo?q=a%20b",
    )  # fmt: skip

    assert ended.is_code(0), ended.out
    assert ended.said["good"] == 10


def test_check_that_fails_is_an_error_that_names_it(tmp_path: Path, origin: str) -> None:
    ended = load(
        tmp_path, f"{origin}/fixed", "--rate", "40", "--for", "250ms", "--check", "body~bye", "--expect", "good>50%"
    )

    assert ended.is_code(1)
    assert ended.said["errors_by_kind"] == {"check failed: body~bye": 10}


def test_closed_model_is_marked(tmp_path: Path, origin: str) -> None:
    ended = load(tmp_path, f"{origin}/fixed?ms=50", "--users", "5", "--for", "2s")

    assert ended.is_code(0)
    assert ended.said["model"] == "closed"
    assert ended.said["asked_per_second"] is None
    # Five users, 20 requests a second each at the most.
    assert 50 < ended.said["good_per_second"] <= 100
    assert "CLOSED MODEL" in ended.out


def test_too_few_descriptors_are_not_valid(tmp_path: Path, origin: str) -> None:
    ended = load(
        tmp_path, f"{origin}/hang", "--rate", "60", "--for", "1s", "--timeout", "1s",
        before=("sh", "-c", 'ulimit -n 60; exec "$@"', "sh"),
    )  # fmt: skip

    assert ended.code == 3
    assert ended.said["waited_for_connection"] + ended.said["unsent"] == 40
    assert ended.said["unsent"] + ended.said["errors"] == 60
    assert "raise the limit of open files" in ended.out


def test_generator_that_cannot_keep_up_is_not_valid(tmp_path: Path, origin: str) -> None:
    ended = load(tmp_path, f"{origin}/hang", "--rate", "400000", "--for", "1s", "--timeout", "1s", "--connections", "5")

    assert ended.code == 3
    assert not ended.said["valid"]
    assert "NOT VALID" in ended.out


def test_run_is_aborted_once_it_cannot_hold(tmp_path: Path, origin: str) -> None:
    began = time.monotonic()
    ended = load(
        tmp_path, f"{origin}/errors?every=2", "--rate", "50", "--for", "600s", "--expect", "errors<0.01%",
        "--abort-on-fail",
    )  # fmt: skip

    assert ended.is_code(1)
    assert time.monotonic() - began < 60
    assert ended.said["stopped"] == "errors<0.01% cannot hold any more"


def test_interrupt_reports_what_was_measured(tmp_path: Path, origin: str) -> None:
    file = tmp_path / "result.json"
    command = [*COMMAND, f"{origin}/fixed", "--rate", "50", "--for", "600s", "--json", str(file), "--live", "lines"]
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=clean_environment()
    )
    assert running.stderr is not None
    line = running.stderr.readline()

    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=LONG_WAIT_SECONDS)

    assert "asked" in line
    said = json.loads(file.read_text())
    assert has_ended_as(0, running.returncode, said)
    assert said["stopped"] == "Ctrl-C"
    assert 0 < said["good"] < 50 * 60
    assert said["good_per_second"] == pytest.approx(50, rel=0.5)
    assert "stopped early: Ctrl-C" in out


def test_full_disk_costs_the_file_and_not_the_numbers(origin: str) -> None:
    done = subprocess.run(
        [*COMMAND, f"{origin}/fixed", "--rate", "40", "--for", "250ms", "--json", "/dev/full", "--live", "off"],
        capture_output=True,
        text=True,
        timeout=LONG_WAIT_SECONDS,
        cwd=ROOT,
        env=clean_environment(),
    )

    assert done.returncode == 2
    assert "10 good" in done.stdout
    assert done.stderr.startswith("Error: the report cannot be saved in /dev/full: No space left on device;")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--rate", "10", "--expect", "p99<3"), "'p99<3': which unit? Write p99<3ms or p99<3s"),
        (("--rate", "10", "--expect", "p99<3%"), "'%' is no unit of p99; write p99<3ms or p99<3s"),
        (("--rate", "10", "--expect", "errors<1"), "which unit? Write errors<1% or errors<1/s"),
        (("--rate", "10", "--expect", "speed<1s"), "there is no 'speed'; what can be expected is p50"),
        (("--rate", "many"), "--rate 'many' is not understood: write 200/s"),
        (("--rate", "10", "--for", "30"), "which unit? write 30s or 30ms"),
        ((), "how much? say --rate 200"),
        (("--rate", "10", "--users", "5"), "are two models"),
        (("--rate", "10", "--header", "nonsense"), "is no header: write 'Name: value'"),
        (("--rate", "10", "--check", "nice"), "--check 'nice' is not understood"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    ended = load(tmp_path, "http://127.0.0.1:9/", *arguments)

    assert ended.code == 2
    assert sentence in ended.err
    assert ended.err.count("\n") == 1


def test_public_address_is_not_loaded_without_being_asked_twice(tmp_path: Path) -> None:
    ended = load(tmp_path, "http://192.0.2.1/", "--rate", "10")

    assert ended.code == 2
    assert "add --i-may-load-this" in ended.err


def test_wall_clock_that_steps_changes_nothing(tmp_path: Path, origin: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\nsteps = itertools.count()\nreal = time.time\n"
        "time.time = lambda: real() + (-1) ** next(steps) * 3600\n"
    )
    file = tmp_path / "result.json"
    done = subprocess.run(
        [*COMMAND, f"{origin}/fixed?ms=20", "--rate", "50", "--for", "1s", "--json", str(file), "--live", "lines"],
        capture_output=True,
        text=True,
        timeout=LONG_WAIT_SECONDS,
        cwd=ROOT,
        env={**clean_environment(), "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )

    said = json.loads(file.read_text())
    assert has_ended_as(0, done.returncode, said), done.stderr
    assert said["good"] == 50
    assert 20 <= said["p50_ms"] < 1000
