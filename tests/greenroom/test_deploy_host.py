"""The configuration of nginx and the units of systemd in deploy/, held to each other and to the settings."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app import flask_settings, security
from app.config import Config
from app.jobs.queue import TASK_SECONDS
from greenroom.companion import STOP_SECONDS
from greenroom.settings import Settings

from .deploy_files import DEPLOY, INSTALLED, ROOT, UNITS, directives, seconds, shipped, text

# ---- nginx.conf


def nginx_blocks(config: str) -> list[Any]:
    """The directives as lists of words; a block's last item is the list of its directives."""
    token = re.compile(r"""\s*(?:\#[^\n]*|("[^"]*"|'[^']*'|[^\s;{}"']+|[;{}]))""")
    stack: list[list[Any]] = [[]]
    words: list[Any] = []
    for match in token.finditer(config):
        part = match[1]
        if part is None:
            continue
        if part == ";":
            stack[-1].append(words)
            words = []
        elif part == "{":
            block: list[Any] = []
            stack[-1].append([*words, block])
            stack.append(block)
            words = []
        elif part == "}":
            stack.pop()
        else:
            words.append(part.strip("\"'"))
    assert len(stack) == 1
    assert not words
    return stack[0]


def find(block: list[Any], name: str) -> list[list[Any]]:
    """Every directive `name` in `block` and in the blocks inside."""
    found = [directive for directive in block if directive[0] == name]
    for directive in block:
        if isinstance(directive[-1], list):
            found += find(directive[-1], name)
    return found


@pytest.fixture(scope="module")
def http() -> list[Any]:
    (block,) = find(nginx_blocks(text("nginx.conf")), "http")
    return list(block[-1])


def test_nginx_sets_each_header_that_somebody_behind_it_could_believe(http: list[Any]) -> None:
    believed = {name.removeprefix("HTTP_").replace("_", "-") for name in security.FORWARDED}
    believed |= {"X-FORWARDED-PROTOCOL", "X-FORWARDED-SSL"}  # gunicorn's secure_scheme_headers
    everywhere = [directive for directive in http if directive[0] == "proxy_set_header"]

    assert believed <= {directive[1].upper() for directive in everywhere}
    # One in an inner block would take the place of all of them there.
    assert find(http, "proxy_set_header") == everywhere
    assert not any("$http_" in value or "proxy_add" in value for _, _, value in everywhere)


def test_nginx_can_tell_a_broken_answer_from_a_whole_one(http: list[Any]) -> None:
    """Over a unix socket nothing but the chunks of HTTP/1.1 tells: there is no reset, and 1.0 ends with the close."""
    assert find(http, "proxy_http_version") == [["proxy_http_version", "1.1"]]


def test_nginx_closes_idle_connections_before_the_server_does(http: list[Any]) -> None:
    (upstream,) = find(http, "upstream")
    (idle,) = find(upstream[-1], "keepalive_timeout")

    assert seconds(idle[1]) < Settings().keepalive_seconds
    assert seconds(idle[1]) < int(shipped()["GREENROOM_KEEPALIVE_SECONDS"])


def test_running_requests_outlast_idle_connections_and_boards_when_the_server_stops() -> None:
    graceful = int(shipped()["GREENROOM_GRACEFUL_TIMEOUT_SECONDS"])

    assert graceful > int(shipped()["GREENROOM_KEEPALIVE_SECONDS"])
    assert graceful > Config().BOARD_BUDGET_MS / 1000


def test_nginx_waits_longer_than_the_server_takes_to_explain_itself(http: list[Any]) -> None:
    (patience,) = find(http, "proxy_read_timeout")

    assert seconds(patience[1]) > Config().BOARD_BUDGET_MS / 1000 + Config().DB_POOL_TIMEOUT_SECONDS


def test_nginx_allows_bodies_as_large_as_the_application_does(http: list[Any]) -> None:
    (limit,) = find(http, "client_max_body_size")

    assert int(limit[1].removesuffix("m")) * 1_048_576 == flask_settings(Config())["MAX_CONTENT_LENGTH"]


def test_static_files_carry_the_security_headers_of_the_application(http: list[Any]) -> None:
    ours = security.response_headers(is_production=True).headers
    (static,) = [location for location in find(http, "location") if location[1] == "/static/"]
    set_here = {directive[1]: directive[2] for directive in find(static[-1], "add_header")}

    for name in ("Strict-Transport-Security", "X-Content-Type-Options", "Cross-Origin-Resource-Policy"):
        assert set_here[name] == ours[name]


def test_nginx_does_not_buffer_the_stream(http: list[Any]) -> None:
    (stream,) = [location for location in find(http, "location") if "/stream" in location[2]]

    assert re.search(stream[2], "/api/boards/demo/stream")
    assert ["proxy_buffering", "off"] in stream[-1]


# ---- systemd


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    # It wants the programs and files named to exist.
    copy = tmp_path / unit.name
    programs = str(Path(sys.executable).parent)
    copy.write_text(unit.read_text().replace(f"{INSTALLED}/.venv/bin", programs).replace(INSTALLED, str(ROOT)))

    result = subprocess.run([analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60)

    complaints = [line for line in result.stderr.splitlines() if unit.name in line]
    assert complaints == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_runs_where_and_as_the_readme_says(unit: Path) -> None:
    found = directives(unit)

    assert found["User"] == ["greenroom"]
    assert found["WorkingDirectory"] == [INSTALLED]
    assert found["EnvironmentFile"] == ["/etc/greenroom/production.env"]
    assert found["StateDirectory"] == ["greenroom"]
    assert "INSTANCE_PATH=/var/lib/greenroom" in found["Environment"][0].split()


def test_socket_of_server_and_nginx_is_in_the_folder_that_systemd_makes(http: list[Any]) -> None:
    bind = shipped()["GREENROOM_BIND"]
    (upstream,) = find(http, "upstream")

    assert ["server", bind] in upstream[-1]
    assert bind == f"unix:/run/{directives(DEPLOY / 'greenroom.service')['RuntimeDirectory'][0]}/greenroom.sock"


def test_systemd_waits_longer_than_start_and_stop_may_take() -> None:
    server = directives(DEPLOY / "greenroom.service")
    stop = Settings().graceful_timeout_seconds + STOP_SECONDS

    assert int(server["TimeoutStartSec"][0]) > Settings().companion_timeout_seconds
    assert int(server["TimeoutStopSec"][0]) > stop
    assert int(directives(DEPLOY / "greenroom-celery.service")["TimeoutStopSec"][0]) > TASK_SECONDS
    assert int(server["LimitNOFILE"][0]) > 2 * Settings().worker_connections


def test_units_are_hardened_alike() -> None:
    hardening = [
        {
            line
            for line in unit.read_text().splitlines()
            if re.match(r"(No|Protect|Private|Restrict|System|Cap|Lock)", line)
        }
        for unit in UNITS
    ]
    hardening = [{line for line in lines if not line.startswith("RestartPrevent")} for lines in hardening]

    assert len(hardening) == 3
    assert hardening[0] == hardening[1] == hardening[2]
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes"} <= hardening[0]
