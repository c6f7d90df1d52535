"""How gunicorn runs Greenroom; `gunicorn` without arguments reads this file.

Every value comes from the environment or `.env` (see .env-template). What is decided here has its reason beside it.
"""

import sys
from pathlib import Path

from greenroom import importing, patching
from greenroom.companion import python_module
from greenroom.cores import usable_cores
from greenroom.hooks import Hooks, read_settings
from greenroom.settings import REFERENCE_APP, read_environment

HERE = Path(__file__).resolve().parent

environ = read_environment(HERE / ".env")

# Somebody named an application: their package comes first, also if it has the name of ours.
if environ.get("WSGI_APP"):
    importing.prefer_pythonpath(environ, Path.cwd())
is_reference_app = importing.is_reference_app(environ.get("WSGI_APP") or REFERENCE_APP)
settings = read_settings(environ, check_command=python_module("app.config") if is_reference_app else None)

# Before anything that holds sockets, locks or threads is imported. The worker classes to compare with stay unpatched.
if settings.is_green:
    patching.patch(settings)

wsgi_app = settings.wsgi_app
bind = [address.strip() for address in settings.bind.split(",")]
workers = settings.web_concurrency or usable_cores()
worker_class = settings.worker_class_uri
worker_connections = settings.worker_connections
threads = settings.threads if settings.worker_class == "gthread" else 1
backlog = settings.backlog
timeout = settings.timeout_seconds
graceful_timeout = settings.graceful_timeout_seconds
keepalive = settings.keepalive_seconds
max_requests = settings.max_requests
max_requests_jitter = settings.max_requests_jitter
forwarded_allow_ips = settings.forwarded_allow_ips
certfile = settings.tls_certificate or None
keyfile = settings.tls_key or None
loglevel = settings.log_level
accesslog = "-" if settings.access_log else None

# One listener shared by all workers: with a listener each, a worker that is busy or gone strands the connections the
# kernel already gave it (26 of 100 requests waited over a second behind one blocked worker; with a shared one, none).
reuse_port = False
# The application is imported by each worker: a reload (HUP) then reads new code, and nothing is shared by accident.
preload_app = False
# Two servers of one user would share the socket's default path; signals do all that it does.
control_socket_disable = True
# The heartbeat file in memory: on a busy disk touching it can block, and the arbiter takes the worker for dead.
worker_tmp_dir = "/dev/shm" if sys.platform == "linux" and Path("/dev/shm").is_dir() else None

hooks = Hooks(settings, python_module("app.prepare") if is_reference_app and settings.companion else None, environ)
on_starting = hooks.on_starting
on_reload = hooks.on_reload
pre_fork = hooks.pre_fork
post_fork = hooks.post_fork
post_worker_init = hooks.post_worker_init
child_exit = hooks.child_exit
on_exit = hooks.on_exit
