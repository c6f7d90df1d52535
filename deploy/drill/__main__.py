"""A drill: three hosts behind nginx go through what production goes through, and lost requests are counted.

    python -m deploy.drill [--loopback] [--clients N]

    clients ─ TLS ─> nginx ─┬─> web1 ─┐              edge   nginx and the clients
                            ├─> web2 ─┼─> PgBouncer (transaction mode) ─> PostgreSQL      data
                            └─> web3 ─┘   Redis (sessions)                                data

Reloads, restarts one after the other, a deploy with a migration, a new certificate and a slow host lose nothing. A host
that is killed loses at most what it had in flight. One that is cut off says nothing: it loses besides what nginx sends
to it over connections that stand open, until those are 4 seconds old (keepalive_timeout in nginx.conf). Needs nginx,
pgbouncer, redis-server and openssl; as root each host is a network namespace, else cutting one off is left out. Ends
with 0 when every count was as allowed.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import requests

from .load import Load
from .network import DATA, EDGE, Loopback, Namespaces, open_network
from .parts import (
    ROOT,
    SECONDS,
    DrillError,
    Host,
    Nginx,
    Postgres,
    environment,
    free_port,
    start_pgbouncer,
    start_redis,
    wait_until,
)

HOSTS = ["web1", "web2", "web3"]
EMAIL, PASSWORD = "drill@example.org", "correct horse battery staple"  # noqa: S105 - of a database that is thrown away
STEADY_SECONDS = 4.0
# Of nginx.conf: for so long an idle connection may stand open, and for so long an answer may take.
KEPT_SECONDS, ANSWER_SECONDS = 4.0, 30.0
CLIENTS = 6
MIGRATION = '''"""A column that the new code may use and the old code does not know."""
import sqlalchemy as sa
from alembic import op
revision = "drill"
down_revision = "{before}"
branch_labels = depends_on = None
def upgrade() -> None:
    op.add_column("boards", sa.Column("note", sa.String(200)))
def downgrade() -> None:
    op.drop_column("boards", "note")
'''
MAKE_USER = """
from app import create_app
from app.extensions import db
from app.models import ApiToken, User
app = create_app()
with app.app_context():
    user = User(email={email!r})
    user.set_password({password!r})
    db.session.add(user)
    _, text = ApiToken.issue(user, "drill")
    db.session.commit()
    print("token:" + text)
"""


@dataclass(frozen=True)
class Phase:
    """One event and its cost. `in_flight` were under way when it happened; `unexcused` must not be lost."""

    name: str
    requests: int
    lost: int
    in_flight: int
    unexcused: list[str]
    slowest_seconds: float

    @property
    def is_well(self) -> bool:
        return not self.unexcused


class Drill:
    def __init__(self, network: Namespaces | Loopback, folder: Path, clients: int) -> None:
        self.network, self.folder, self.clients = network, folder, clients
        self.stack = ExitStack()
        self.phases: list[Phase] = []

    def folder_of(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir()
        return made

    def build(self) -> None:
        network = self.network
        with network.inside(DATA):
            postgres = Postgres(self.folder / "postgres", port=free_port("127.0.0.1"))
            postgres.create()
            postgres.start(60)
        self.stack.callback(postgres.stop)
        self.postgres = postgres
        self.direct = environment(postgres.url("boards"), "", APP_ENV="production", PUBLIC_URL="https://localhost")
        self.on_data([sys.executable, "-c", CREATE_DATABASE.format(url=postgres.url("postgres"))], ROOT)
        self.migrate(ROOT)
        made = self.on_data([sys.executable, "-c", MAKE_USER.format(email=EMAIL, password=PASSWORD)], ROOT)
        token = made.rpartition("token:")[2].strip()
        pgbouncer, database_url = start_pgbouncer(network, self.folder_of("pgbouncer"), postgres)
        self.stack.callback(pgbouncer.stop)
        redis, redis_url = start_redis(network, self.folder_of("redis"))
        self.stack.callback(redis.stop)
        environ = environment(
            database_url,
            redis_url,
            PUBLIC_URL="https://localhost",
            WEB_CONCURRENCY="1",
            DB_POOL_SIZE="5",
            SIGN_IN_LIMIT="1000",
            GREENROOM_GRACEFUL_TIMEOUT_SECONDS="20",
        )
        self.hosts = [Host(network, name, self.folder_of(name), environ, ROOT) for name in HOSTS]
        for host in self.hosts:
            self.stack.callback(lambda host=host: host.process.stop())
        for host in self.hosts:
            host.wait_ready()
        self.nginx = Nginx(network, self.folder_of("nginx"), self.hosts)
        self.stack.callback(self.nginx.process.stop)
        url = f"https://localhost:{self.nginx.https_port}"
        self.load = Load(network, url, self.nginx.trusted, token, self.sign_in, self.clients)

    def on_data(self, command: list[str], release: Path) -> str:
        """Run a program next to the database, as migrations are: with it and not with PgBouncer."""
        environ = {**self.direct, "PYTHONPATH": str(release)}
        with self.network.inside(DATA):
            done = subprocess.run(command, cwd=release, env=environ, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise DrillError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-3000:])
        return done.stdout

    def migrate(self, release: Path) -> None:
        self.on_data([sys.executable, "-m", "flask", "--app", "app", "db", "upgrade"], release)

    def sign_in(self, session: requests.Session) -> None:
        url = self.load.url + "/sign-in"
        form = session.get(url, timeout=60)
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form.text)
        fields = {"email": EMAIL, "password": PASSWORD, "csrf_token": found[1] if found else ""}
        answer = session.post(url, data=fields, headers={"Referer": url}, timeout=60, allow_redirects=False)
        if answer.status_code not in (302, 303):
            raise DrillError(f"signing in was answered with {answer.status_code}: {answer.text[:300]}")

    # What happens

    def phase(self, name: str, happens: Callable[[], object], excused_seconds: float | None = None) -> None:
        """Let it happen under load, and judge what was lost since.

        `excused_seconds`: a request that is sent until so long after it may be lost. None: no request may.
        """
        began = time.monotonic()
        moment = happens()
        at = moment if isinstance(moment, float) else began
        excused_until = 0.0 if excused_seconds is None else at + excused_seconds
        self.steady()
        wait_until(
            lambda: all(one > excused_until for one in list(self.load.asking.values())),
            "what was under way has ended",
            ANSWER_SECONDS + SECONDS,
        )
        results = self.load.since(began)
        lost = [one for one in results if one.is_lost]
        unexcused = [f"{one.method} {one.status} {one.said}" for one in lost if one.began > excused_until]
        slowest = max((one.ended - one.began for one in results), default=0.0)
        in_flight = sum(1 for one in results if one.began <= at <= one.ended)
        self.phases.append(Phase(name, len(results), len(lost), in_flight, unexcused, slowest))
        print(f"  {row(self.phases[-1])}", flush=True)

    def steady(self) -> None:
        seen, until = len(self.load.results), time.monotonic() + STEADY_SECONDS
        wait_until(lambda: time.monotonic() > until and len(self.load.results) > seen + 5, "clients are answered")

    def reload_all(self) -> None:
        for host in self.hosts:
            host.reload()
        self.nginx.reload()

    def restart_all(self) -> None:
        """As deploy/README.md says: the next one when nginx uses this one again."""
        for host in self.hosts:
            is_used = self.nginx.uses(host)
            host.process.stop()
            host.start_again()
            wait_until(is_used, f"nginx uses {host.name} again")

    def deploy(self) -> None:
        """The migration first; the old code still runs on the new tables. Then the new code, host after host."""
        release = self.folder / "release-2"
        shutil.copytree(ROOT, release, ignore=lambda folder, names: [n for n in names if is_left_out(folder, n)])
        versions = release / "app/migrations/versions"
        newest = max(path.stem for path in versions.glob("*.py"))
        found = re.search(r'^revision[^=]*= ["\'](\w+)', (versions / f"{newest}.py").read_text(), re.M)
        (versions / "29990101_drill.py").write_text(MIGRATION.format(before=found[1] if found else ""))
        self.migrate(release)
        for host in self.hosts:
            host.release = release
        self.restart_all()

    def renew_certificate(self) -> None:
        with self.network.inside(EDGE):
            before = self.nginx.served_certificate()
            self.nginx.use_certificate("second")
            self.nginx.reload()
            wait_until(lambda: self.nginx.served_certificate() != before, "the new certificate is served")

    def slow_host(self) -> None:
        """It runs a tenth of the time, as under a noisy neighbour."""
        host, over = self.hosts[0], threading.Event()

        def slow() -> None:
            while not over.is_set():
                host.process.signal_all(signal.SIGSTOP)
                over.wait(0.45)
                host.process.signal_all(signal.SIGCONT)
                over.wait(0.05)

        thread = threading.Thread(target=slow)
        thread.start()
        self.steady()
        over.set()
        thread.join(30)

    def cut_host(self) -> float:
        self.network.cut(self.hosts[1].name)
        return time.monotonic()

    def heal_host(self) -> None:
        is_used = self.nginx.uses(self.hosts[1])
        self.network.mend(self.hosts[1].name)
        wait_until(is_used, f"nginx uses {self.hosts[1].name} again")

    def kill_host(self) -> float:
        self.hosts[2].process.kill()
        return time.monotonic()

    def revive_host(self) -> None:
        is_used = self.nginx.uses(self.hosts[2])
        self.hosts[2].start_again()
        wait_until(is_used, f"nginx uses {self.hosts[2].name} again")

    def run(self) -> None:
        with self.load.running():
            wait_until(lambda: self.load.broken or len(self.load.results) > 20, "clients are answered")
            if self.load.broken:
                raise DrillError(self.load.broken[0])
            self.phase("nothing happens", lambda: None)
            self.phase("all hosts and nginx reload", self.reload_all)
            self.phase("hosts restart, one after the other", self.restart_all)
            self.phase("a deploy with a migration", self.deploy)
            self.phase("the certificate is renewed", self.renew_certificate)
            self.phase("a host is slow", self.slow_host)
            if self.network.is_real:
                self.phase("a host is cut off", self.cut_host, KEPT_SECONDS)
                self.phase("it is back", self.heal_host)
            self.phase("a host is killed", self.kill_host, 0.0)
            self.phase("it is back", self.revive_host)

    def lost_writes(self) -> int:
        """Boards that were answered with 201 and are not in the database."""
        asked = self.on_data([sys.executable, "-c", READ_SLUGS.format(url=self.postgres.url("boards"))], ROOT)
        return len(set(self.load.written) - set(asked.split()))


CREATE_DATABASE = """
import psycopg2
connection = psycopg2.connect({url!r})
connection.autocommit = True
connection.cursor().execute("CREATE DATABASE boards")
"""
READ_SLUGS = """
import psycopg2
cursor = psycopg2.connect({url!r}).cursor()
cursor.execute("SELECT slug FROM boards")
print(*(slug for slug, in cursor.fetchall()))
"""


def is_left_out(folder: str, name: str) -> bool:
    """Of the copy that is deployed: what is no code of the application's."""
    wanted = {"app", "greenroom", "devdb", "gunicorn.conf.py"}
    return name == "__pycache__" or (Path(folder) == ROOT and name not in wanted)


def row(phase: Phase) -> str:
    return (
        f"{phase.name:<36} {phase.requests:>6} {phase.lost:>5} {phase.in_flight:>10} "
        f"{phase.slowest_seconds:>9.2f} s  {'ok' if phase.is_well else 'TOO MANY: ' + phase.unexcused[0]}"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.drill", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loopback", action="store_true", help="loopback addresses, though namespaces could be made")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"how many ask all the time ({CLIENTS})")
    asked = parser.parse_args(arguments)
    if asked.loopback:
        network: Namespaces | Loopback = Loopback([*HOSTS, DATA])
        said = "As asked, the hosts are loopback addresses; none of them is cut off."
    else:
        network, said = open_network([*HOSTS, DATA])
    print(said, flush=True)
    with tempfile.TemporaryDirectory(prefix="drill-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        drill = Drill(network, folder, asked.clients)
        try:
            with drill.stack:
                drill.build()
                print(f"  {'what happens':<36} {'asked':>6} {'lost':>5} {'in flight':>10} {'slowest':>11}", flush=True)
                drill.run()
                missing = drill.lost_writes()
        except DrillError as exc:
            print(exc, file=sys.stderr)
            return 2
        finally:
            network.close()
    total = sum(phase.requests for phase in drill.phases)
    print(f"{total} requests; {len(drill.load.written)} writes were acknowledged, {missing} of them are missing")
    return 0 if not missing and all(phase.is_well for phase in drill.phases) else 1


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
