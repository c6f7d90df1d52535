"""Calls that can't wait in the event loop, in a real server: password hashes, coroutines, wrong names."""

import socket
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import requests
from werkzeug.security import generate_password_hash

from tests.support import PASSWORD, csrf_token

from .conftest import PYTHON_MODULE, Server, wait_until

APPS = Path(__file__).parent / "apps"
COROUTINES = {"PYTHONPATH": str(APPS), "WSGI_APP": "coroutines:app", "WEB_CONCURRENCY": "1"}
SERVE = (*PYTHON_MODULE, "greenroom", "serve")
SIGN_INS = 20


@pytest.mark.parametrize("command", [(*PYTHON_MODULE, "gunicorn"), SERVE], ids=["gunicorn", "serve"])
def test_fifty_async_views_and_fifty_calls_of_an_asyncio_library_wait_together(
    start: Callable[..., Server], command: tuple[str, ...]
) -> None:
    server = start(COROUTINES, command).wait_ready("/seen")

    def ask(number: int) -> dict[str, str]:
        path = "/view/4000" if number % 2 else "/library/4000"
        answer = requests.get(f"{server.url}{path}", params={"number": number}, timeout=60)
        answer.raise_for_status()
        assert answer.json()["path"] == path
        return answer.json()["number"]

    with ThreadPoolExecutor(100) as pool:
        numbers = list(pool.map(ask, range(100)))

    assert numbers == [str(number) for number in range(100)]
    assert requests.get(server.url + "/seen", timeout=30).json()["most_waiting"] >= 50


def test_health_is_answered_while_twenty_sign_in(start: Callable[..., Server], database_url: str) -> None:
    """With a hash of twice the usual cost, so that it outweighs all else that a sign-in is."""
    email = "expensive@example.org"
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        row = (email, generate_password_hash(PASSWORD, "scrypt:65536:8:1"))
        cursor.execute("INSERT INTO users (email, password_hash, created_at) VALUES (%s, %s, now())", row)
    environ = {
        "DATABASE_URL": database_url,
        "SIGN_IN_LIMIT": "1000",
        "WEB_CONCURRENCY": "1",
        "GREENROOM_LIMIT_REQUESTS": "100",
        "GREENROOM_KEEPALIVE_SECONDS": "60",
    }
    server = start(environ).wait_ready()
    visitors = [requests.Session() for _ in range(SIGN_INS)]
    tokens = [csrf_token(visitor.get(server.url + "/sign-in", timeout=30).text) for visitor in visitors]

    def sign_in(number: int) -> int:
        form = {"csrf_token": tokens[number], "email": email, "password": PASSWORD}
        answer = visitors[number].post(server.url + "/sign-in", data=form, timeout=100, allow_redirects=False)
        return answer.status_code

    latencies = []
    with ThreadPoolExecutor(SIGN_INS) as pool, requests.Session() as probe:
        probe.get(server.url + "/healthz", timeout=30)
        began = time.monotonic()
        answers = [pool.submit(sign_in, number) for number in range(SIGN_INS)]
        while not all(answer.done() for answer in answers):
            asked = time.monotonic()
            assert probe.get(server.url + "/healthz", timeout=30).status_code == 200
            latencies.append(time.monotonic() - asked)
            time.sleep(0.01)  # leave the machine to the server
        took = time.monotonic() - began
    for visitor in visitors:
        visitor.close()

    assert [answer.result() for answer in answers] == [302] * SIGN_INS
    # On a loop that is stopped for each hash, a question waits for the one that runs: took / 20, or more.
    assert statistics.median(latencies) < took / SIGN_INS / 2, (took, sorted(latencies))


def test_while_thirty_names_hang_others_are_found_and_each_error_is_bounded(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    hangs = tmp_path / "hangs"
    hangs.touch()
    environ = {"PYTHONPATH": str(APPS), "WSGI_APP": "names:app", "WEB_CONCURRENCY": "1", "HANGS_IF_EXISTS": str(hangs)}
    settings = {"GREENROOM_DNS_TIMEOUT_SECONDS": "10", "GREENROOM_LIMIT_REQUESTS": "100"}
    server = start(environ | settings).wait_ready("/seen")

    def look_up(name: str) -> requests.Response:
        return requests.get(f"{server.url}/look-up/{name}", timeout=60)

    with ThreadPoolExecutor(30) as pool:
        slow = [pool.submit(look_up, f"slow.zone{number}.test") for number in range(30)]
        good = [look_up(f"good{number}.test").status_code for number in range(10)]
        still_waiting = sum(not answer.done() for answer in slow)
        answers = [answer.result() for answer in slow]
    hangs.unlink()
    wait_until(lambda: look_up("slow.zone1.test").ok, "the name is found when the name server answers again")

    assert good == [200] * 10
    assert still_waiting == 30, "ten good names took longer than the bound of the slow ones"
    assert {(answer.status_code, answer.json()["errno"]) for answer in answers} == {(502, socket.EAI_AGAIN)}
    assert min(answer.json()["seconds"] for answer in answers) >= 9.9


@pytest.mark.parametrize("command", [(*PYTHON_MODULE, "gunicorn"), SERVE], ids=["gunicorn", "serve"])
def test_names_that_mean_nothing_stop_the_start_and_are_all_told(
    start: Callable[..., Server], command: tuple[str, ...]
) -> None:
    server = start({**COROUTINES, "GREENROOM_OFFLOAD": "coroutines.nothing, hashlib.scrypt, no_such.thing"}, command)

    assert server.wait_gone() != 0
    assert "coroutines.nothing: coroutines has no function nothing" in server.text()
    assert "no_such.thing: there is no module no_such" in server.text()


HEAD = "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("path", ["/body", "/body-in-a-thread"])
def test_async_view_whose_body_comes_late_gets_it_and_holds_up_nobody(start: Callable[..., Server], path: str) -> None:
    server = start(COROUTINES).wait_ready("/seen")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(HEAD.format(path=path).encode())
        others = [requests.get(f"{server.url}/view/10", timeout=30).status_code for _ in range(5)]
        client.sendall(b"01234")
        others += [requests.get(f"{server.url}/library/10", timeout=30).status_code for _ in range(5)]
        client.sendall(b"56789")
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert others == [200] * 10
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"length":10' in answer.replace(b" ", b"")


def test_answer_is_written_from_a_coroutine_s_threads_to_a_client_that_reads_slowly(
    start: Callable[..., Server],
) -> None:
    server = start(COROUTINES).wait_ready("/seen")
    with requests.get(server.url + "/write", stream=True, timeout=60) as answer:
        other = requests.get(f"{server.url}/view/10", timeout=30).status_code
        length = sum(len(part) for part in answer.iter_content(100_000))

    assert (other, length) == (200, 20 * 1_000_000)
