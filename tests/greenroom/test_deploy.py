"""The files in deploy/ name settings, files, commands and times of the project; here they are held to each other."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dotenv import dotenv_values

from app import flask_settings, security
from app.config import SECRET_NAMES, TEMPLATE_SECRET, Config, ConfigError, read_config
from app.jobs.queue import TASK_SECONDS
from greenroom.companion import STOP_SECONDS
from greenroom.ops.metrics import exposition
from greenroom.settings import Settings, rows
from tests.greenroom.ops.fakes import moment, seen

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file() and path.name != ".env")
INSTALLED = "/srv/greenroom"
SETTINGS = {row.name for row in rows()} | set(Config.model_fields)
# Capital letters with an underscore that are no setting of ours.
FOREIGN_NAMES = {
    "AF_UNIX",
    "AF_INET",
    "AF_INET6",
    "AF_NETLINK",
    "MAX_CONTENT_LENGTH",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD",
    "POSTGRES_USER",
}


def text(name: str) -> str:
    return (DEPLOY / name).read_text()


def directives(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#;[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(text("compose.yaml")))


# ---- Names in all of them


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_named_exists(path: Path) -> None:
    names = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", strip_ciphers(path.read_text())))

    assert names - SETTINGS - FOREIGN_NAMES == set()


def strip_ciphers(config: str) -> str:
    return re.sub(r"ssl_ciphers [^;]*;", "", config)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_of_the_project_named_exists(path: Path) -> None:
    content = path.read_text()
    named = set(re.findall(r"(?<![\w./-])(?:deploy|app|greenroom|tests)/[\w./-]*\w", content))
    named |= set(re.findall(rf"{INSTALLED}/([\w./-]*\w)", content))
    named -= {"deploy/.env", "deploy/tls"}  # the operator's own
    missing = {name for name in named if not name.startswith(".venv/") and not (ROOT / name).exists()}

    assert missing == set()


def test_readme_links_exist_and_name_every_file() -> None:
    links = set(re.findall(r"\]\(([^)]+)\)", text("README.md")))

    assert {link for link in links if not (DEPLOY / link).exists()} == set()
    assert {path.name for path in FILES} - links == {"README.md", "Dockerfile.dockerignore"}


def commands() -> Iterator[tuple[str, list[str]]]:
    """(where, words) of each command that starts something of ours."""
    for unit in UNITS:
        yield unit.name, shlex.split(directives(unit)["ExecStart"][-1])
    for name, service in compose()["services"].items():
        if "build" in service and "command" in service:
            yield f"compose {name}", shlex.split(service["command"])
    yield "Dockerfile", ["gunicorn"]
    for line in text("README.md").splitlines():
        for command in re.findall(r"(?:\.venv/bin/|`)((?:flask|python|celery|dotenv) [^`']+)", line):
            yield "README.md", shlex.split(command)


@pytest.mark.parametrize(("where", "words"), list(commands()), ids=lambda value: str(value))
def test_every_command_named_exists(where: str, words: list[str]) -> None:
    program = Path(words[0]).name

    assert (Path(sys.executable).parent / program).exists()
    if program == "celery":
        assert words[1:3] == ["-A", "app.celery_app"]
        assert (ROOT / "app" / "celery_app.py").exists()
    if program == "flask":
        assert words[1:3] == ["db", "upgrade"]
    if words[1:2] == ["-m"]:
        assert (ROOT / words[2].replace(".", "/") / "__main__.py").exists()


# ---- production.env


def shipped() -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(DEPLOY / "production.env").items()}


def test_production_env_has_only_settings_that_exist() -> None:
    assert set(shipped()) - SETTINGS == {"POSTGRES_PASSWORD"}


def test_production_env_holds_no_secret_and_is_refused_as_it_is() -> None:
    secrets = {name: value for name, value in shipped().items() if name in SECRET_NAMES}

    with pytest.raises(ConfigError) as refused:
        read_config(shipped())

    asked_for = {name for name, value in secrets.items() if TEMPLATE_SECRET in value}
    assert asked_for == {"SECRET_KEY", "DATABASE_URL", "MAIL_PASSWORD"}
    assert {problem.split()[0] for problem in refused.value.problems} == asked_for


def test_production_env_is_accepted_with_its_placeholders_filled_in() -> None:
    filled = {name: value.replace(TEMPLATE_SECRET, "0123456789abcdef" * 2) for name, value in shipped().items()}

    config, settings = read_config(filled), Settings.read(filled)

    assert config.is_production
    assert config.trusted_proxies == ["unix"]
    assert settings.bind.startswith("unix:")


def test_production_env_means_the_same_to_systemd_and_compose() -> None:
    """Both take a line as it is, but for quotes, `$` and comments behind values, which they read differently."""
    lines = [line for line in text("production.env").splitlines() if line and not line.startswith("#")]

    assert [line for line in lines if not re.fullmatch(r"[A-Z_]+=[\w@:/.,-]*", line)] == []
    assert dict(line.split("=", 1) for line in lines) == shipped()


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


def seconds(value: str) -> int:
    return int(value.removesuffix("s"))


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


# ---- Containers


KNOWN_KEYS = set(
    "image build env_file environment restart stop_grace_period read_only tmpfs cap_drop security_opt logging command "
    "healthcheck depends_on cpus volumes ports shm_size".split()
)


def test_compose_has_the_services_and_only_keys_that_compose_knows() -> None:
    services = compose()["services"]

    assert set(services) == {"migrate", "web", "worker", "beat", "postgres", "redis", "nginx"}
    assert {key for service in services.values() for key in service} - KNOWN_KEYS == set()


def test_compose_starts_things_after_what_they_need() -> None:
    services = compose()["services"]
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            if how["condition"] == "service_healthy" and "build" not in services[needed]:
                assert "test" in services[needed]["healthcheck"]

    for name in ("web", "worker", "beat"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_compose_holds_no_secret() -> None:
    for service in compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            assert name in SETTINGS | FOREIGN_NAMES
            if name == "POSTGRES_PASSWORD":
                assert value.startswith("${POSTGRES_PASSWORD:?")
            if "@" in str(value):
                assert ":${POSTGRES_PASSWORD:?" in value


@pytest.mark.parametrize("path", ["deploy/.env", "deploy/tls/privkey.pem"])
def test_secrets_of_the_operator_stay_out_of_git(path: str) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")

    assert subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, timeout=60).returncode == 0


def test_compose_settings_are_accepted_with_the_filled_in_environment() -> None:
    filled = {name: value.replace(TEMPLATE_SECRET, "0123456789abcdef" * 2) for name, value in shipped().items()}
    for name in ("web", "worker", "beat", "migrate"):
        mine = compose()["services"][name]["environment"]
        mine = {key: re.sub(r"\$\{[^}]*\}", "secret", value) for key, value in mine.items()}

        assert read_config({**filled, **mine}).is_production
        Settings.read({**filled, **mine})


def test_compose_files_and_volumes_exist() -> None:
    described = compose()
    for service in described["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert source == "./tls" or (DEPLOY / source).exists()
            else:
                assert source in described["volumes"]
        if "build" in service:
            context = DEPLOY / service["build"]["context"]
            assert context.resolve() == ROOT
            assert (context / service["build"]["dockerfile"]).exists()


def test_containers_get_the_time_to_stop_that_they_need() -> None:
    services = compose()["services"]

    assert seconds(services["web"]["stop_grace_period"]) > Settings().graceful_timeout_seconds + STOP_SECONDS
    assert seconds(services["worker"]["stop_grace_period"]) > TASK_SECONDS


def test_image_copies_what_exists_and_what_its_ignore_file_lets_through() -> None:
    kept = {line.removeprefix("!") for line in text("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    copied = [word for line in re.findall(r"^COPY (.*)$", text("Dockerfile"), re.M) for word in line.split()[:-1]]

    assert set(copied) == kept
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_image_does_not_run_as_root() -> None:
    (user,) = re.findall(r"^USER (\S+)$", text("Dockerfile"), re.M)

    assert int(user) > 0
    # Nothing is built or installed after giving up root, and the server is started after it.
    after = text("Dockerfile").partition(f"USER {user}")[2]
    assert "RUN" not in after
    assert 'CMD ["gunicorn"]' in after


def test_image_has_a_health_check_on_a_port_that_it_listens_on() -> None:
    web = compose()["services"]["web"]["environment"]["GREENROOM_BIND"]
    (checked,) = re.findall(r"http://(127\.0\.0\.1:\d+)/healthz", text("Dockerfile"))

    assert checked in web.split(",")
    assert f"GREENROOM_BIND=0.0.0.0:{checked.rpartition(':')[2]}" in text("Dockerfile")


# ---- Kubernetes


def kubernetes() -> dict[str, Any]:
    """Each object by its kind and name."""
    objects = list(yaml.safe_load_all(text("kubernetes.yaml")))
    return {f"{one['kind']} {one['metadata']['name']}": one for one in objects}


@pytest.mark.parametrize("name", list(kubernetes()))
@pytest.mark.parametrize("version", ["1.27", "1.33"])
def test_kubernetes_objects_are_valid_by_its_schema(name: str, version: str) -> None:
    kubernetes_validate.validate(kubernetes()[name], version, strict=True)


def test_probes_of_kubernetes_ask_the_health_checks_and_it_waits_long_enough() -> None:
    pod = kubernetes()["Deployment greenroom"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 8000}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8000}
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = pause + Settings().graceful_timeout_seconds + STOP_SECONDS
    assert pod["terminationGracePeriodSeconds"] > needed
    assert {item["name"] for item in container["env"]} <= SETTINGS


def test_kubernetes_objects_find_each_other() -> None:
    objects = kubernetes()
    web = objects["Deployment greenroom"]
    labels = web["spec"]["template"]["metadata"]["labels"]
    scaler = objects["HorizontalPodAutoscaler greenroom"]["spec"]

    assert "replicas" not in web["spec"], "each apply would undo what the autoscaler did"
    assert scaler["scaleTargetRef"]["name"] == web["metadata"]["name"]
    for one in (web["spec"]["selector"]["matchLabels"], objects["Service greenroom"]["spec"]["selector"]):
        assert one.items() <= labels.items()
    assert objects["PodDisruptionBudget greenroom"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (container,) = web["spec"]["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    services = [one for name, one in objects.items() if name.startswith("Service ")]
    assert {port["targetPort"] for one in services for port in one["spec"]["ports"]} <= ports
    assert f"dns:{services[1]['metadata']['name']}:8001" in str(container["env"])


def test_autoscaler_asks_for_a_metric_that_there_is() -> None:
    (metric,) = kubernetes()["HorizontalPodAutoscaler greenroom"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]

    assert re.search(rf"^{name} [\d.]+$", exposition(moment(seen())), re.M)
    assert name in text("README.md")


def test_alerts_ask_for_metrics_that_there_are() -> None:
    rules = yaml.safe_load(text("prometheus/greenroom.rules.yml"))["groups"][0]["rules"]
    known = set(re.findall(r"^# TYPE (greenroom_\w+)", exposition(moment(seen()), {"cause": "x", "level": "ok"}), re.M))

    asked = {name for rule in rules for name in re.findall(r"greenroom_\w+", rule["expr"])}

    assert asked
    assert {name.removesuffix("_total") for name in asked} <= known
    assert {rule["labels"]["severity"] for rule in rules} == {"page", "ticket"}
    assert all(rule["annotations"]["summary"] and rule["annotations"]["description"] for rule in rules)
