"""Requests of `greenroom load`: several, logins, values, scenarios, logs; TLS, HTTP/2, event streams."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom.load import commands, plan
from greenroom.load.building import plan_of
from greenroom.load.sources import recorded_as_json
from greenroom.load.units import LoadError
from tests.live.synthetic import synthetic
from tests.support import self_signed

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with synthetic() as address:
        yield f"http://{address}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    pem, key = self_signed(tmp_path_factory.mktemp("tls"))
    return str(pem), str(key)


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands.add_to(parser.add_subparsers())
    return parser.parse_args(["load", *arguments])


def run(*arguments: str) -> dict[str, Any]:
    """Run what the command line says, in this process."""
    planned, source = plan_of(options(*arguments))
    said = plan.run(planned)
    if source is not None:
        said["recorded"] = recorded_as_json(source)
    return said


def test_several_requests_come_as_often_as_their_weights_say(origin: str) -> None:
    said = run(
        f"{origin}/fixed", "--rate", "400", "--for", "1s", "--also", "3 GET /echo?a=1", "--also", "POST /echo {}"
    )  # fmt: skip

    counts = {name: route["requests"] for name, route in said["routes"].items()}
    assert set(counts) == {"GET /fixed", "GET /echo", "POST /echo"}
    assert counts["GET /echo"] == pytest.approx(240, abs=60)
    assert counts["POST /echo"] == pytest.approx(80, abs=40)
    assert said["good"] == 400


def test_values_fill_path_header_and_body_in_turn(origin: str, tmp_path: Path) -> None:
    values = tmp_path / "values.csv"
    values.write_text("word,user\na b,ada\nc&d,bob\n")

    said = run(
        f"{origin}/echo?q={{word}}", "--rate", "80", "--for", "250ms", "--values", str(values), "--header",
        "X-User: {user}", "--body", '{"user": "{user}"}', "--method", "POST", "--check", "json.method=POST",
        "--check", 'body!~{user}', "--check", "body~a%20b",
    )  # fmt: skip

    assert (said["good"], said["errors"]) == (10, 10)  # each second row has another word
    assert said["errors_by_kind"] == {"check failed: body~a%20b": 10}
    assert list(said["routes"]) == ["POST /echo"]


def test_login_comes_first_and_its_cookie_goes_with_every_request(origin: str) -> None:
    without = run(f"{origin}/member", "--rate", "40", "--for", "250ms")
    signed_in = run(f"{origin}/member", "--rate", "40", "--for", "250ms", "--login", "POST /login user=ada")

    assert without["errors_by_kind"] == {"status 401": 10}
    assert signed_in["good"] == 10


def test_login_that_is_refused_is_said(origin: str) -> None:
    with pytest.raises(LoadError, match="the login was refused: POST /login was answered 403"):
        run(f"{origin}/member", "--rate", "10", "--login", "POST /login user=eve")


SCENARIO = """
from greenroom.load.scenario import get, post, weight

EXPECT = ["good>90%", "p99[look]<20s"]


def setup(session):
    session.post("/login", form={"user": "ada"})
    return {"who": session.get("/echo").json()["method"]}


@weight(3)
def look(values):
    return get("/member", query={"who": values["who"]})


def tell(values):
    return post("/echo", json_body={"who": values["who"]}, headers={"X-Who": values["who"]})


def check_tell(answer):
    said = answer.json()
    return answer.status == 200 and said["headers"]["x-who"] == "GET" and said["body"] == '{"who": "GET"}'


def _helper(values):
    raise AssertionError("is no request")
"""


def test_scenario_is_a_module_of_plain_functions(origin: str, tmp_path: Path) -> None:
    file = tmp_path / "shop_load.py"
    file.write_text(SCENARIO)

    said = run(origin, "--rate", "200", "--for", "1s", "--scenario", str(file))

    assert set(said["routes"]) == {"look", "tell"}
    assert said["routes"]["look"]["requests"] == pytest.approx(150, abs=40)
    assert said["good"] == 200, said["errors_by_kind"]
    assert [(row["text"], row["held"]) for row in said["expectations"]] == [("good>90%", True), ("p99[look]<20s", True)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def f(values:\n", "cannot be imported: SyntaxError"),
        ("x = 1\n", "has no requests: define a function that returns"),
        ("def f(values):\n    return 1\n", r"f\(\) of s.py returned 1: return get"),
        ("def f(values):\n    return values['no']\n", r"f\(\) of s.py failed: KeyError: 'no'"),
        ("def f(values): ...\ndef setup(session):\n    return 1\n", r"setup\(\) of s.py returned 1"),
    ],
)
def test_wrong_scenario_is_one_sentence(origin: str, tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "s.py"
    file.write_text(text)

    with pytest.raises(LoadError, match=sentence):
        run(origin, "--rate", "40", "--for", "250ms", "--scenario", str(file))


def test_scenario_is_python_and_no_yaml(origin: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("requests:\n  - get: /\n")

    with pytest.raises(LoadError, match=r"s.yaml is no Python: write functions that return get\('/path'\)"):
        run(origin, "--rate", "40", "--for", "250ms", "--scenario", str(file))


def test_access_log_is_played_at_its_own_pace(origin: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    line = '10.0.0.1 - - [10/Oct/2026:13:55:{:02d} +0000] "{} HTTP/1.1" 200 5 "-" "x"\n'
    asked = [(0, "GET /echo?a=1"), (0, "GET /fixed"), (1, "POST /echo"), (3, "GET /echo?a=2"), (3, "OPTIONS /fixed")]
    log.write_text("".join(line.format(second, request) for second, request in asked) + "nonsense\n")

    said = run(origin, "--from", str(log), "--speed", "2")

    assert said["planned"] == said["good"] == 4
    assert said["recorded"]["notes"] == ["left out: 1 POST; --with-writes sends them, too"]
    assert [row["asked"] for row in said["seconds"]][:2] == [2, 2]
    assert set(said["routes"]) == {"GET /echo", "GET /fixed", "OPTIONS /fixed"}


def test_har_file_is_played_with_its_headers_and_bodies(origin: str, tmp_path: Path) -> None:
    har = tmp_path / "shop.har"

    def entry(second: float, method: str, url: str, **more: Any) -> dict[str, Any]:
        request = {"method": method, "url": url, "headers": [{"name": "X-One", "value": "1"}], **more}
        return {"startedDateTime": f"2026-10-10T10:00:0{second:.3f}Z", "request": request, "response": {}, "time": 5}

    entries = [
        entry(0, "GET", "https://shop.example/echo?a=1"),
        entry(0.5, "POST", "https://shop.example/echo", postData={"text": "hello"}),
        entry(0.7, "GET", "https://cdn.example/picture"),
    ]
    har.write_text(json.dumps({"log": {"entries": entries}}))

    said = run(origin, "--from", str(har), "--with-writes", "--timeout", "5s")

    assert {name: route["good"] for name, route in said["routes"].items()} == {"GET /echo": 1, "POST /echo": 1}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hello\n", "has no arrivals"),
        ('{"log": {"entries": [{}]}}', "the HAR file .* is damaged"),
        ('<script type="application/json" id="arrivals">{"format": "greenroom-arrivals/1"}</script>', "is damaged"),
        (
            '<script type="application/json" id="arrivals">{"format": "greenroom-arrivals/9"}</script>',
            "another version",
        ),
    ],
)
def test_file_without_arrivals_is_one_sentence(origin: str, tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "file"
    file.write_text(text)

    with pytest.raises(LoadError, match=sentence):
        run(origin, "--from", str(file))


def test_new_connections_are_one_for_each_request(origin: str) -> None:
    kept = run(f"{origin}/fixed", "--rate", "50", "--for", "1s", "--arrivals", "constant")
    fresh = run(f"{origin}/fixed", "--rate", "50", "--for", "1s", "--new-connections")

    assert kept["generator"]["connections"] < 25
    assert fresh["generator"]["connections"] == fresh["good"] == 50


def test_event_stream_is_measured_to_the_event_that_was_asked_for(origin: str) -> None:
    first = run(f"{origin}/events?ms=50", "--rate", "80", "--for", "250ms")
    third = run(f"{origin}/events?ms=50", "--rate", "80", "--for", "250ms", "--events", "3")

    assert (first["good"], first["events"], third["good"], third["events"]) == (20, 20, 20, 60)
    assert 50 <= first["p50_ms"] < third["p50_ms"]
    assert 150 <= third["p50_ms"]


def test_tls_is_verified_unless_told_otherwise(certificate: tuple[str, str]) -> None:
    with synthetic(*certificate) as address:
        trusted = run(f"https://{address}/fixed", "--rate", "50", "--for", "1s", "--ca", certificate[0])
        insecure = run(f"https://{address}/fixed", "--rate", "80", "--for", "250ms", "--insecure", "--new-connections")
        refused = run(f"https://{address}/fixed", "--rate", "40", "--for", "250ms")
        plain = run(f"http://{address}/fixed", "--rate", "40", "--for", "250ms")

    assert (trusted["good"], insecure["good"]) == (50, 20)
    assert list(refused["errors_by_kind"]) == ["certificate not trusted (self-signed certificate)"]
    assert plain["errors"] == 10


@pytest.mark.parametrize("is_tls", [False, True], ids=["prior knowledge", "TLS"])
def test_http2_sends_many_requests_on_one_connection(certificate: tuple[str, str], is_tls: bool) -> None:
    with synthetic("h2", *(certificate if is_tls else ())) as address:
        scheme = "https" if is_tls else "http"
        said = run(
            f"{scheme}://{address}/echo?ms=300", "--http2", "--rate", "50", "--for", "1s", "--arrivals", "constant",
            "--header", "X-One: 1", "--body", "x" * 100_000, "--check", "json.body=100000", "--check", "json.one=1",
            "--ca", certificate[0],
        )  # fmt: skip

    assert (said["good"], said["errors_by_kind"]) == (50, {})
    assert said["generator"]["connections"] < 10
    assert said["p50_ms"] >= 300


def test_http2_stream_that_is_reset_or_late_ends_alone(certificate: tuple[str, str]) -> None:
    with synthetic("h2") as address:
        said = run(
            f"http://{address}/fixed", "--http2", "--rate", "100", "--for", "1s", "--timeout", "2s", "--also",
            "1 GET /reset", "--also", "1 GET /fixed?ms=60000",
        )  # fmt: skip

    assert set(said["errors_by_kind"]) == {"connection reset", "timed out"}
    assert said["good"] == pytest.approx(33, abs=25)
    assert said["good"] + said["errors"] == 100


def test_server_without_http2_is_an_error_of_its_own(origin: str) -> None:
    said = run(f"{origin}/fixed", "--http2", "--rate", "5", "--for", "1s", "--timeout", "1s")

    assert said["good"] == 0
    assert said["errors"] == 5
