"""Verdicts on workers and their machine: stalls, deaths, reloads, memory, descriptors, disks, logs, threads."""

from typing import Any

from greenroom.worker.balance import State

from .fakes import NOW, seen, snapshot
from .troubles import AT, causes, stalls, verdict


def test_memory_that_grows_names_the_route_and_when_it_is_full() -> None:
    limits = {
        "growth": {"bytes_per_second": 5e7, "bytes_per_request": 1e6, "until_full_seconds": 90.0},
        "memory": {"limit_bytes": 8e9},
    }
    growth = [{"route": "/leak", "count": 10, "bytes": 5e6}, {"route": "/ok", "count": 50, "bytes": 2e3}]

    found = verdict(seen(said=snapshot(growth=growth)), limits=limits)

    assert (found["level"], found["cause"]) == ("bad", "memory_grows")
    assert found["sentence"] == (
        "Memory grows by 5.0 MB for each request of /leak (50.0 MB/s): the limit of 8.0 GB is reached in 90 s."
    )


def test_few_descriptors_left_are_said() -> None:
    limits = {"descriptors": [{"worker": 1, "used": 255, "limit": 256}]}

    found = verdict(seen(said=snapshot()), limits=limits)

    assert (found["level"], found["cause"]) == ("bad", "descriptors")
    assert "255 of 256 file descriptors" in found["sentence"]


def test_a_disk_that_is_nearly_full_is_said() -> None:
    disk = {"path": "/srv", "free_bytes": 1e6, "total_bytes": 1e9, "free_files_ratio": 0.5}

    assert verdict(seen(said=snapshot()), limits={"disks": [disk]})["cause"] == "disk_full"
    assert verdict(seen(said=snapshot()), limits={"disks": [{**disk, "free_bytes": 5e8}]})["cause"] == "healthy"


def stall(line: str, **more: Any) -> dict[str, Any]:
    row = {"since": NOW - 10.0, "seconds": 2.0, "stolen_seconds": 0.0, "line": line, "route": "/a", "holds_gil": False}
    return {**row, "request": "r", "stack": [], "cpu_seconds": 2.0, "garbage_seconds": 0.0, **more}


def test_a_wait_in_c_is_told_from_computing() -> None:
    waits = verdict(seen(said=snapshot(stalls=stalls(stall("a.py:3", cpu_seconds=0.01)))))
    computes = verdict(seen(said=snapshot(stalls=stalls(stall("a.py:3")))))

    assert "waiting in C without using the CPU" in waits["sentence"]
    assert "use subprocess" in waits["do"]
    assert "waiting in C" not in computes["sentence"]


def test_garbage_collection_is_named_and_no_line_blamed() -> None:
    found = verdict(seen(said=snapshot(stalls=stalls(*[stall("a.py:3", garbage_seconds=1.9)] * 3))))

    assert causes(found) == ["garbage"]
    assert "3 times in the last minute, for up to 1.9 s" in found["sentence"]


def test_a_full_log_pipe_is_named() -> None:
    stack = ["logging/__init__.py:1086 flush", "logging/__init__.py:1114 emit", "a.py:3 view"]
    block = {"seconds": 5.0, "line": "a.py:3", "route": "/a", "stack": stack, "holds_gil": False}
    said = snapshot(stalls={**stalls(), "current": block})

    found = verdict(seen(said=said, silent=5.0, cpu=0.0))

    assert found["cause"] == "log_blocks"
    assert "nobody reads it (the pipe is full)" in found["sentence"]


def died(**ending: Any) -> dict[str, Any]:
    return {"at": AT, "since": NOW - 3.0, "kind": "died", "worker": 2, "pid": 9, "had": 0, "ending": ending}


def test_how_a_worker_died_is_said() -> None:
    def said(limits: Any = None, **ending: Any) -> str:
        return str(verdict(seen(said=snapshot()), events=[died(**ending)], limits=limits or {})["sentence"])

    assert ": it crashed in C code (SIGSEGV) at a.py:3;" in said(signal="SIGSEGV", line="a.py:3")
    assert ": somebody killed it (SIGKILL);" in said(signal="SIGKILL")
    assert ": the kernel killed it (SIGKILL), because memory was used up;" in said(
        limits={"oom_seconds": [40.0, 3.0]}, signal="SIGKILL"
    )
    assert ": it exited with code 7;" in said(code=7)
    assert ": it was told to abort (SIGABRT) at a.py:3;" in said(code=0, line="a.py:3")


def test_each_of_several_kills_by_the_kernel_is_one() -> None:
    seconds = (41.0, 22.0, 3.0)
    killed = [{**died(signal="SIGKILL"), "since": NOW - ago} for ago in seconds]
    crashed = {**died(signal="SIGSEGV"), "since": NOW - 50.0}

    found = verdict(seen(said=snapshot()), events=[crashed, *killed], limits={"oom_seconds": list(seconds)})

    assert "most of them: the kernel killed it (SIGKILL), because memory was used up." in found["sentence"]
    assert "GREENROOM_WORKER_MEMORY_MB" in found["do"]


def test_a_worker_that_died_tells_the_routes_that_it_had() -> None:
    event = {**died(signal="SIGKILL"), "had": 2, "routes": ["/export", "/"]}

    sentence = str(verdict(seen(said=snapshot()), events=[event], limits={})["sentence"])

    assert "with 2 requests in it (/export, /);" in sentence


def test_a_stall_of_a_worker_that_was_told_to_abort_has_the_line_once() -> None:
    stall = {"holds_gil": False, "line": "a.py:3", "seconds": 60.0, "route": "/slow"}
    event = {**died(code=1, line="a.py:3"), "stall": stall}

    sentence = str(verdict(seen(said=snapshot()), events=[event], limits={})["sentence"])

    assert ": it was told to abort (SIGABRT), blocked for 60 s at a.py:3 in /slow;" in sentence


def test_a_reload_that_failed_is_no_dead_worker() -> None:
    boot = {"error": "ModuleNotFoundError", "message": "No module named 'nope'", "line": "app.py:4", "at": AT}
    failures = [{**boot, "since": NOW - 5.0, "worker": 3, "pid": 30}]
    reload = {"at": AT - 6.0, "since": NOW - 6.0}

    found = verdict(seen(said=snapshot()), reload=reload, boot_failures=failures)
    mended = verdict(seen(said=snapshot()), reload={"at": AT - 2.0, "since": NOW - 2.0}, boot_failures=failures)

    assert (found["level"], found["cause"]) == ("watch", "reload_failed")
    assert found["sentence"].endswith(
        "failed: ModuleNotFoundError: No module named 'nope' at app.py:4; the old code serves on (1 worker)."
    )
    assert mended["cause"] == "healthy"


def test_an_import_that_hangs_is_named_with_its_line() -> None:
    booting = seen(2, {"version": 1, "booting": ["app.py:3 <module>"]}, state=State.BOOTING)
    booting.first_seen_at = NOW - 12.0

    found = verdict(seen(1, snapshot()), booting, reload={"at": AT - 13.0, "since": NOW - 13.0})

    assert found["cause"] == "import_hangs"
    assert "hangs: worker 2 imports the application for 12 s, now at app.py:3 <module>" in found["sentence"]


def test_a_thread_that_computes_beside_the_requests_is_named_however_little_cpu_it_gets() -> None:
    rows = [{"line": "shop/prices.py:7", "started_at": "shop/__init__.py:30", "share": 0.72}]

    found = verdict(seen(said=snapshot(beside=rows), cpu=0.3))

    assert found["sentence"].startswith(
        "shop/prices.py:7 computes beside the requests for 72% of the time of worker 1 (started at shop/__init__.py:30)"
    )
    few = [{**rows[0], "share": 0.2}]
    assert verdict(seen(said=snapshot(beside=few)))["level"] == "ok"


def test_stalls_that_fill_what_is_kept_are_bad_and_told_for_the_time_that_they_cover() -> None:
    stalls = [
        {"since": NOW - 0.8 * number, "seconds": 0.7, "cpu_seconds": 0.0, "line": "v.py:7", "route": "/c"}
        for number in range(30)
    ]
    said = snapshot(stalls={"total": 30, "seconds": 21.0, "current": None, "top": [], "last": stalls})

    found = verdict(seen(said=said))

    assert found["level"] == "bad"
    assert found["sentence"].startswith("v.py:7 (/c) blocked worker 1 for 14 s in the last 15.9 s (20 stalls, waiting")


def test_a_first_start_that_takes_long_is_no_reload() -> None:
    booting = seen(2, state=State.BOOTING)
    booting.first_seen_at = NOW - 9.0
    assert "import_hangs" not in causes(verdict(seen(), booting))

    booting.first_seen_at = NOW - 20.0
    found = verdict(seen(), booting)
    assert found["cause"] == "import_hangs"
    assert found["sentence"] == "worker 2 imports the application for 20 s; 1 worker serves."


def test_threads_and_children_that_do_not_end_are_named() -> None:
    rows = [
        {"worker": 1, "kind": "threads", "name": "shop.py:9", "count": 900, "grown": 600, "seconds": 40.0},
        {"worker": 2, "kind": "threads", "name": "shop.py:9", "count": 800, "grown": 500, "seconds": 40.0},
        {"worker": 1, "kind": "children", "name": "sleep", "count": 40, "grown": 30, "seconds": 40.0},
    ]
    found = verdict(seen(said=snapshot()), leaks=rows)

    assert causes(found) == ["threads_left", "children_left"]
    assert found["sentence"] == (
        "Threads that are started at shop.py:9 do not end: 1700 of them live in 2 workers, 1100 more in the last 40 s."
    )
    assert found["others"][0]["sentence"] == (
        "Child processes (sleep) are started and not ended: worker 1 has 40, 30 more in the last 40 s."
    )


def test_a_log_that_is_written_much_is_not_one_that_nobody_reads() -> None:
    stack = ["logging/__init__.py:1086 flush", "logging/__init__.py:1114 emit", "a.py:3 view"]
    block = {"seconds": 5.0, "line": "a.py:3", "route": "/a", "stack": stack, "holds_gil": False}
    found = verdict(seen(said=snapshot(stalls={**stalls(), "current": block}), silent=5.0, cpu=0.9))

    assert found["cause"] == "blocked"
    assert "nobody reads" not in found["sentence"] + found["do"]
    assert "better said once" in found["do"]


def test_a_reload_whose_configuration_can_not_be_read_is_told_until_the_next_one() -> None:
    why = {"error": "SyntaxError", "message": "'(' was never closed", "line": "gunicorn.conf.py:1"}
    found = verdict(seen(said=snapshot()), reload={"at": AT - 6.0, "since": NOW - 6.0, "refused": why})

    assert (found["level"], found["cause"]) == ("watch", "reload_refused")
    assert found["sentence"].endswith(
        "changed nothing, its configuration can't be read: SyntaxError: '(' was never closed at gunicorn.conf.py:1; "
        "the workers go on as they are."
    )
    assert verdict(seen(said=snapshot()), reload={"at": AT, "since": NOW, "refused": None})["cause"] == "healthy"


def test_a_worker_that_its_own_alarm_ended_did_not_turn_its_loop() -> None:
    found = verdict(seen(said=snapshot()), events=[died(signal="SIGALRM", line="a.py:3")])

    assert ": its loop did not turn for the timeout, and the server ended it at a.py:3" in found["sentence"]
