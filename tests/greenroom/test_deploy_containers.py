"""The containers and the objects of Kubernetes in deploy/, held to their schemas and to the settings."""

import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.config import TEMPLATE_SECRET, read_config
from app.jobs.queue import TASK_SECONDS
from greenroom.companion import STOP_SECONDS
from greenroom.ops.metrics import exposition
from greenroom.settings import Settings
from tests.greenroom.ops.fakes import moment, seen

from .deploy_files import DEPLOY, FOREIGN_NAMES, ROOT, SETTINGS, compose, seconds, shipped, text

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
