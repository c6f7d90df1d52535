"""benchmarks/run.py and peers.py: who is measured, how often, and what the numbers are said to mean."""

import asyncio
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import run
from benchmarks.apps import hello
from benchmarks.machine import ROOT
from benchmarks.measuring import ending
from benchmarks.peers import (
    BASELINE,
    CLASS_ROUTES,
    DICT,
    HELLO,
    OURS,
    PEERS,
    ROUTES,
    SHARED_PACKAGES,
    Environment,
    Peer,
    Route,
    differences,
    packages_of,
    peers_python,
)
from benchmarks.run import Comparison
from benchmarks.servers import ServerFailed
from benchmarks.stats import Round
from benchmarks.targets import Target, judge

VENV = Path("/somewhere/venv")
EVERYTHING = Environment(VENV / "bin" / "python", dict.fromkeys(packages_of(PEERS.values()), "1.0"))
NOTHING = Environment(VENV / "bin" / "python", {"python": "3.11.7"})


def a_round(server: str, rate: float, number: int = 1, route: Route = HELLO, cpu: float = 1.0) -> Round:
    return Round(
        server=server,
        route=route.name,
        number=number,
        seconds=1.0,
        completed=int(rate),
        requests_per_second=rate,
        p50_ms=1.0,
        p90_ms=1.0,
        p99_ms=1.0,
        max_ms=1.0,
        server_cpu_ratio=cpu,
    )


def failing() -> None:
    raise ServerFailed("it ended")


class Fake(Comparison):
    """Measures nothing; whoever is in `broken` fails in the round that stands there."""

    broken: dict[str, int] = {}

    def measure(self, peer: Peer, route: Route, number: int) -> Round:
        if self.broken.get(peer.name) == number:
            raise ServerFailed(f"{peer.name} ended with 1:\n  a line of its log")
        return a_round(peer.label(route), 100.0, number, route)


def comparison(*arguments: str, environment: Environment = EVERYTHING, broken: dict[str, int] | None = None) -> Fake:
    made = Fake(run.read_options(arguments), "", Console(file=io.StringIO()), environment)
    made.broken = broken or {}
    return made


def test_every_server_is_measured_on_every_route_in_every_round() -> None:
    made = comparison("--rounds", "3")

    made.run_rounds()

    assert len(made.rounds) == 3 * sum(peer.is_asked(route) for route in ROUTES.values() for peer in PEERS.values())
    assert len({(one.server, one.route, one.number) for one in made.rounds}) == len(made.rounds)


def test_each_round_begins_with_another_server() -> None:
    made = comparison("--rounds", str(len(PEERS)), "--routes", "hello")

    made.run_rounds()

    first = [one.server for one in made.rounds[:: len(PEERS)]]
    assert sorted(first) == sorted(PEERS)


def test_server_that_is_not_installed_is_listed_and_the_others_are_measured() -> None:
    made = comparison(environment=NOTHING)

    made.run_rounds()

    assert {one.server for one in made.rounds} == {"gevent", "greenroom", "gevent_pywsgi", "gthread"}
    assert [sentence.partition(",")[0] for sentence in made.not_measured] == [
        "granian",
        "uwsgi",
        "hypercorn",
        "uvicorn",
    ]
    assert "granian, because granian, flask is not installed" in made.not_measured


def test_server_that_fails_is_listed_with_its_log_and_in_no_median() -> None:
    made = comparison("--rounds", "3", "--routes", "hello,dict", broken={"granian": 2})

    made.run_rounds()

    assert "granian" not in {one.server for one in made.rounds}
    assert made.not_measured == ["granian failed on hello: granian ended with 1: a line of its log"]
    assert len(made.rounds) == 3 * 2 * (len(PEERS) - 1)


@pytest.mark.parametrize("name", [OURS, BASELINE])
def test_without_ours_or_the_baseline_there_is_nothing_to_say(name: str) -> None:
    with pytest.raises(ServerFailed):
        comparison(broken={name: 1}).run_rounds()


def test_only_what_was_asked_for_is_measured() -> None:
    made = comparison("--peers", "uvicorn,gevent", "--routes", "dict")

    made.run_rounds()

    assert {(one.server, one.route) for one in made.rounds} == {("gevent", "dict"), ("FastAPI + uvicorn", "dict")}


def test_first_server_is_the_baseline_where_the_usual_one_is_not_wanted() -> None:
    assert run.baseline_of(comparison().peers).name == "gevent"
    assert run.baseline_of(comparison("--peers", "gthread,granian").peers).name == "gthread"


@pytest.mark.parametrize("arguments", [["--peers", "gevent,nginx"], ["--peers", ""], ["--routes", "hello,,dict"]])
def test_unknown_name_is_refused_with_the_known_ones(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.read_options(arguments)

    assert "is not one of" in capsys.readouterr().err


def test_quick_is_one_short_round_of_everything() -> None:
    options = run.read_options(["--quick"])

    assert (options.rounds, options.seconds, options.clients) == (1, 0.5, 8)
    assert options.peers == tuple(PEERS)
    assert options.routes == tuple(ROUTES)


def test_target_is_judged_by_the_medians() -> None:
    ours = [a_round(OURS, rate, number) for number, rate in enumerate((300, 290, 10))]
    theirs = [a_round(BASELINE, rate, number) for number, rate in enumerate((100, 90, 100))]

    verdict = judge(Target(HELLO, BASELINE, 2.9), [*ours, *theirs])

    assert verdict is not None
    assert verdict.ratio == pytest.approx(2.9)
    assert verdict.is_reached
    assert verdict.lowest == pytest.approx(0.1)
    assert verdict.highest == pytest.approx(290 / 90)
    assert verdict.sentence().startswith("hello: 2.90 times gevent, 0.10 to 3.22 in the rounds")


def test_server_that_got_half_a_core_is_also_compared_by_what_it_got() -> None:
    rounds = [a_round(OURS, 100.0, cpu=0.5), a_round(BASELINE, 100.0)]

    verdict = judge(Target(HELLO, BASELINE, 3.0), rounds)

    assert verdict is not None
    assert verdict.ratio == 1.0
    assert verdict.per_cpu_second == 2.0
    assert not verdict.is_reached
    assert verdict.sentence().endswith("2.00 by CPU time (target: 3): not reached")


@pytest.mark.parametrize(
    "rounds",
    [
        [],
        [a_round(OURS, 100.0)],
        [a_round(BASELINE, 100.0)],
        [a_round(OURS, 100.0), a_round(BASELINE, 0.0)],
        [a_round(OURS, 100.0, route=DICT), a_round(BASELINE, 100.0)],
    ],
)
def test_target_is_not_judged_by_half_of_it(rounds: list[Round]) -> None:
    assert judge(Target(HELLO, BASELINE, 3.0), rounds) is None


def test_target_on_the_dict_route_finds_the_other_framework_by_its_name() -> None:
    rounds = [a_round(OURS, 90.0, route=DICT), a_round("FastAPI + uvicorn", 100.0, route=DICT)]

    verdict = judge(Target(DICT, "uvicorn", 1.0, is_aim=True), rounds)

    assert verdict is not None
    assert "0.90 times FastAPI + uvicorn" in verdict.sentence()
    assert "(aim: 1): not reached" in verdict.sentence()


def test_document_names_targets_and_what_was_not_measured() -> None:
    made = comparison("--peers", "gevent,greenroom,granian", "--routes", "hello,dict", environment=NOTHING)
    made.run_rounds()

    content = made.document("2026-01-01T00:00:00Z", PEERS[BASELINE], run.summarize(made.rounds, BASELINE))

    assert [(one["route"], one["against"], one["at_least"]) for one in content["targets"]] == [
        ("hello", "gevent", 3.0),
        ("dict", "gevent", 1.7),
    ]
    assert content["not_measured"] == ["granian, because granian, flask is not installed"]
    assert [(one["name"], one["route"]) for one in content["servers"]] == [
        ("gevent", "hello"),
        ("greenroom", "hello"),
        ("gevent", "dict"),
        ("greenroom", "dict"),
    ]
    assert content["servers"][1]["settings"]["worker_class"] == "greenroom"
    assert content["servers"][1]["command"] == ("python", "-m", "gunicorn")


@pytest.mark.parametrize(
    ("route", "peer"), [(route, peer) for route in ROUTES.values() for peer in PEERS.values() if peer.is_asked(route)]
)
def test_command_serves_the_routes_application_on_the_port_it_is_given(peer: Peer, route: Route) -> None:
    server = peer.server(route, EVERYTHING, threads=8)

    words = [*server.command, *server.environment.values()]
    assert sum("{port}" in word for word in words) == 1
    assert server.app in words
    assert not any(word in ("{app}", "{threads}", "{venv}") for word in words)


def test_ours_has_every_setting_at_its_default_and_stock_workers_none_of_our_patches() -> None:
    settings = run.effective_settings(PEERS[OURS].server(HELLO, EVERYTHING, threads=8))
    default = run.effective_settings(PEERS[BASELINE].server(HELLO, EVERYTHING, threads=8))

    assert {name for name in settings if settings[name] != default[name]} == {
        "worker_class",
        "patch_requests",
        "patch_dns",
        "patch_psycopg2",
        "patch_sqlalchemy",
    }


def test_shown_command_has_no_folder_of_this_machine() -> None:
    shown = [
        " ".join(run.public_command(peer.server(DICT, EVERYTHING, 8).command, EVERYTHING.python))
        for peer in PEERS.values()
    ]

    for command in shown:
        assert str(VENV) not in command
        assert str(ROOT) not in command
        assert sys.prefix not in command
    assert shown[0] == "python -m gunicorn"
    assert any(command.startswith("uwsgi --http ") for command in shown)


@pytest.mark.parametrize(
    ("route", "body", "is_right"),
    [
        (HELLO, b"Hello, world!\n", True),
        (HELLO, b"Hello, world!", False),
        (DICT, b'{"numbers":[1,2,3], "message":"hello"}\n', True),
        (DICT, b'{"message":"hello"}', False),
        (DICT, b"<h1>Internal Server Error</h1>", False),
    ],
)
def test_answer_is_right_only_if_it_says_what_it_should(route: Route, body: bytes, is_right: bool) -> None:
    assert route.is_right(body) is is_right


def test_bare_applications_answer_alike() -> None:
    started: list[Any] = []
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    body = b"".join(hello.wsgi({}, lambda *arguments: started.append(arguments)))
    asyncio.run(hello.asgi({"type": "http"}, receive, send))

    assert body == sent[1]["body"] == HELLO.expected
    assert started == [("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14")])]
    assert sent[0]["headers"] == [(b"content-type", b"text/plain"), (b"content-length", b"14")]


def test_flask_route_answers_what_the_benchmark_expects() -> None:
    from benchmarks.apps.flask_dict import app

    assert DICT.is_right(app.test_client().get(DICT.path).data)


def test_versions_that_differ_between_the_environments_are_told() -> None:
    ours = {"python": "3.11.7", "flask": "3.1.3", "gevent": "26.9.0"}

    assert differences(ours, {**ours, "granian": "2.8.7"}) == []
    assert differences(ours, {**ours, "flask": "3.0.0"}) == ["flask is 3.1.3 under gunicorn and 3.0.0 under the peers"]
    assert differences(ours, {"python": "3.14.0"}) == ["python is 3.11.7 under gunicorn and 3.14.0 under the peers"]


def test_environment_tells_what_is_installed_and_what_is_not() -> None:
    environment = Environment.look(Path(sys.executable), ("flask", "no-such-package"))

    assert set(environment.versions) == {"python", "flask"}


def test_python_that_is_not_there_is_told_in_one_sentence() -> None:
    with pytest.raises(ServerFailed, match="the Python for the peers can't be run"):
        Environment.look(peers_python(Path("/nowhere")), ())


def test_requirements_pin_every_peer_and_say_why() -> None:
    lines = (ROOT / "benchmarks" / "requirements.txt").read_text().splitlines()
    constrained = {
        line.partition("==")[0].lower() for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line
    }
    names = set()
    for line in lines:
        if line and not line.startswith(("#", "-c")):
            requirement, _, why = line.partition("#")
            name = re.split(r"[=\[ ]", requirement, maxsplit=1)[0].lower()
            assert "==" in requirement or name in constrained, line
            assert why.strip(), line
            names.add(name)

    assert "-c ../requirements.txt" in lines
    assert set(packages_of(PEERS.values())) | set(SHARED_PACKAGES) <= names


def test_worker_classes_are_all_asked_on_the_same_routes_by_as_many_clients() -> None:
    made = comparison("--worker-classes", "--rounds", "1", environment=NOTHING)

    made.run_rounds()

    classes = ["sync", "gthread", "gevent", "greenroom"]
    assert sorted({(one.route, one.server) for one in made.rounds}) == sorted(
        (route, name) for route in CLASS_ROUTES for name in classes
    )
    assert {made.options.clients_on(route) for route in made.routes} == {64}


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--clients", "many"], ["--seconds", "-1"], ["--fast"]])
def test_wrong_options_end_with_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run.read_options(wrong)

    assert exit_info.value.code == 2
    assert "usage: python -m benchmarks.run" in capsys.readouterr().err


def test_one_program_lists_all_benchmarks_and_runs_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    assert program.main() == 0
    listed = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["benchmarks", "nothing"])
    assert program.main() == 2
    monkeypatch.setattr(sys, "argv", ["benchmarks", "run", "--help"])
    with pytest.raises(SystemExit):
        program.main()

    assert all(f"  {name} " in listed for name in program.COMMANDS)
    assert "--worker-classes" in capsys.readouterr().out
    having_main = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef main(" in path.read_text()}
    assert having_main - {"__main__"} == set(program.COMMANDS)


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [(lambda: None, 0, ""), (lambda: False, 1, ""), (failing, 1, "Error: it ended\n")],
)
def test_a_command_ends_with_a_code_and_a_sentence(
    work: Callable[[], bool | None], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(work) == code
    assert capsys.readouterr().err == said
