"""gunicorn's configuration while the doctor looks: the application's own, but for what would reach outside.

`_GREENROOM_DOCTOR_KIND` is `greenroom`, `sync` or `gthread`. The address is the doctor's; nothing is daemonized,
written to a log or a pid file, or shared with a server that runs already.
"""

import os
import runpy
from pathlib import Path
from typing import Any

from greenroom.doctor.inside import quarantine
from greenroom.own_configuration import OUR_MODULE
from greenroom.serving_command import CONFIGURATION, OWN_CONFIGURATION

HEARTBEAT = "/.greenroom-doctor"
kind = os.environ.get("_GREENROOM_DOCTOR_KIND", "greenroom")
own = os.environ.get(OWN_CONFIGURATION, "")
# The settings that the doctor decides; everything else stays as the application has it.
OURS: dict[str, Any] = {
    "workers": 1,
    "reuse_port": False,
    "preload_app": False,
    "daemon": False,
    "pidfile": None,
    "user": None,
    "group": None,
    "chroot": None,
    "umask": 0,
    "errorlog": "-",
    "accesslog": None,
    "logconfig": None,
    "logconfig_dict": {},
    "logger_class": None,
    "syslog": False,
    "statsd_host": None,
    "certfile": None,
    "keyfile": None,
    "max_requests": 0,
    "timeout": 30,
    "graceful_timeout": 1,
    "proc_name": None,
    "raw_env": [],
    "control_socket_disable": True,
    "reload": False,
}


def values() -> dict[str, Any]:
    if kind == "greenroom":
        is_ours = bool(own) and OUR_MODULE in Path(own).read_text(errors="replace")
        found = runpy.run_path(own if is_ours else str(CONFIGURATION))
        worker_class = "greenroom.worker.GreenWorker"
    else:
        found = {}
        worker_class = kind
    told = {name: value for name, value in found.items() if not name.startswith("_")}
    for name in ("logger_class", "raw_env", "user", "group"):
        told.pop(name, None)
    told.update({name: value for name, value in OURS.items() if value is not None or name in told})
    told.pop("companion_command", None)
    told["worker_class"] = worker_class
    told["threads"] = 8 if kind == "gthread" else 1
    told["post_fork"] = around_post_fork(told.get("post_fork"))
    told["post_worker_init"] = around_post_worker_init(told.get("post_worker_init"))
    return told


def around_post_fork(theirs: Any) -> Any:
    def post_fork(server: Any, worker: Any) -> None:
        if theirs is not None:
            theirs(server, worker)
        kept = quarantine.from_environment()
        if kept is not None:
            kept.install()
        if kind == "greenroom":
            from greenroom.doctor.inside.probe import DoctorServer, Probe
            from greenroom.ops.socket_folder import SocketFolder

            probe = Probe()
            probe.install()
            listening = DoctorServer(worker, SocketFolder(Path(os.environ["_GREENROOM_DOCTOR_SOCKETS"])))
            listening.probe = probe
            listening.start()

    return post_fork


def around_post_worker_init(theirs: Any) -> Any:
    def post_worker_init(worker: Any) -> None:
        if theirs is not None:
            theirs(worker)
        application = worker.wsgi

        def answering(environ: dict[str, Any], start_response: Any) -> Any:
            if environ.get("PATH_INFO") == HEARTBEAT:
                start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
                return [b"ok"]
            return application(environ, start_response)

        worker.wsgi = answering

    return post_worker_init


globals().update(values())
