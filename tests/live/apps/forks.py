"""Views that fork, in all the ways that applications do. A child says what it did in a file of its name."""

import atexit
import contextvars
import multiprocessing
import os
import pty
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import requests
from flask import Flask, request

FOLDER = Path(os.environ["FORKS_FOLDER"])
app = Flask(__name__)
fork = multiprocessing.get_context("fork")
imported_in = os.getpid()
lock = threading.Lock()
jobs: queue.Queue[str] = queue.Queue()
executor = ThreadPoolExecutor(2)


def note(name: str, text: str = "") -> None:
    with (FOLDER / name).open("a") as file:
        file.write(f"{text or os.getpid()}\n")


def consume() -> None:
    """A background thread of the application's, which waits for jobs: in the parent only."""
    while True:
        note("consumed", f"{jobs.get()} {os.getpid()}")


threading.Thread(target=consume, daemon=True).start()
atexit.register(lambda: note("parents-atexit"))
if os.environ.get("FORKS_AT_IMPORT") and os.fork() == 0:
    time.sleep(0.2)
    note("at-import")
    if os.environ["FORKS_AT_IMPORT"] == "exits":
        os._exit(0)


def waited(pid: int) -> str:
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


@app.get("/readyz")
def ready() -> str:
    return "ready"


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.get("/slow")
def slow() -> str:
    """A request that is in flight while others fork, until it is let go: it must end once, and in the parent."""
    note("slow-begun")
    try:
        while not (FOLDER / "let-go").exists():
            time.sleep(0.05)
        note("slow", f"{request.args['n']} {os.getpid()}")
        return str(os.getpid())
    finally:
        note("slow-finally", f"{request.args['n']} {os.getpid()}")


def everything(url: str) -> None:
    """Use threads, sockets and processes in a child: it must all work, in it alone."""
    time.sleep(0.1)
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(requests.get(url, timeout=20).text)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ThreadPoolExecutor(2) as pool:
        got += pool.map(str, range(2))
    got.append(subprocess.run(["echo", "said"], capture_output=True, text=True).stdout.strip())
    got.append(str(subprocess.run(["sh", "-c", "exit 7"]).returncode))
    socket.getaddrinfo("localhost", 80)
    with lock:
        jobs.put("of the child")
        got.append(jobs.get(timeout=5))
    grandchild = os.fork()
    if grandchild == 0:
        time.sleep(0.05)
        note("grandchild")
        os._exit(5)
    got.append(waited(grandchild))
    note("everything", " ".join(got))


@app.get("/everything")
def fork_and_do_everything() -> str:
    process = fork.Process(target=everything, args=(request.url_root + "pid",))
    process.start()
    process.join()
    return str(process.exitcode)


@app.get("/falls-out")
def falls_out() -> str:
    """The child comes to the end of the view: the answer is the parent's."""
    if (child := os.fork()) == 0:
        time.sleep(0.2)
        note("fell-out")
        return "the child's"
    return waited(child)


@app.get("/streams")
def streams():  # type: ignore[no-untyped-def]
    def chunks():  # type: ignore[no-untyped-def]
        yield "before "
        child = os.fork()
        if child == 0:
            yield "the child's"
        yield waited(child)

    return chunks()


@app.get("/exits")
def exits() -> str:
    if (child := os.fork()) == 0:
        atexit.register(note, "childs-atexit")
        time.sleep(0.1)
        sys.exit(3)
    return waited(child)


@app.get("/fails")
def fails() -> str:
    if (child := os.fork()) == 0:
        raise RuntimeError("of the child")
    return waited(child)


@app.get("/daemon")
def daemon() -> str:
    """The double fork of a daemon; it outlives its request, and its worker."""
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        for _ in range(2400):  # two minutes: it must not outlive a test that fails
            if (FOLDER / "let-go").exists():
                break
            time.sleep(0.05)
        note("daemon")
        os._exit(0)
    return waited(child)


@app.get("/pty")
def in_a_pty() -> str:
    child, terminal = pty.fork()
    if child == 0:
        time.sleep(0.05)
        os.write(1, b"in a terminal\n")
        os._exit(0)
    said = os.read(terminal, 100).decode().strip()
    code = waited(child)
    os.close(terminal)  # earlier, it would hang up on the child
    return f"{said} {code}"


@app.get("/in-thread")
def in_thread() -> str:
    said: list[str] = []

    def run() -> None:
        if (child := os.fork()) == 0:
            time.sleep(0.1)
            note("in-thread")
            return  # a thread's end: the process has nothing else to do
        said.append(waited(child))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return said[0]


@app.get("/in-executor")
def in_executor() -> str:
    def run() -> int | None:
        process = fork.Process(target=note, args=("in-executor",))
        process.start()
        process.join()
        return process.exitcode

    return str(executor.submit(run).result())


@app.get("/in-context")
def in_context() -> str:
    return contextvars.copy_context().run(falls_out)


@app.get("/methods/<method>")
def methods(method: str) -> str:
    process = multiprocessing.get_context(method).Process(target=os.getpid)
    process.start()
    process.join()
    return str(process.exitcode)


@app.get("/terminated")
def terminated() -> str:
    """A child that sleeps is told to end, and does: the worker's handlers are not its."""
    process = fork.Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join(10)
    return str(process.exitcode)


@app.get("/background")
def background() -> str:
    process = fork.Process(target=time.sleep, args=(120,), daemon=request.args["daemonic"] == "1")
    process.start()
    return str(process.pid)


@app.get("/handles")
def handles() -> str:
    """A child has a handler of its own, and only waits."""
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(9))
        note("handles")
        time.sleep(60)
    while not (FOLDER / "handles").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGUSR1)
    return waited(child)


@app.get("/holds-lock")
def holds_lock() -> str:
    """Others wait for a lock that is held at the fork: the child's copy of it wakes nobody."""

    def wait() -> None:
        with lock:
            note("waited", str(os.getpid()))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    with lock:
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        child = os.fork()
    if child == 0:
        time.sleep(0.1)
        with lock:
            pass
        os._exit(0)
    for thread in threads:
        thread.join()
    return waited(child)


@app.get("/parents-socket")
def parents_socket() -> str:
    """Sockets of before the fork work in the child."""
    ours, childs = socket.socketpair()
    if (child := os.fork()) == 0:
        ours.close()
        childs.sendall(childs.recv(10).upper())
        childs.close()
        os._exit(0)
    childs.close()
    time.sleep(0.1)
    ours.sendall(b"word")
    said = b""
    while data := ours.recv(10):
        said += data
    return f"{said.decode()} {waited(child)}"


@app.get("/descriptors")
def descriptors() -> str:
    """Return the sockets that the child holds open, beside those it needs."""
    if (child := os.fork()) == 0:
        held = []
        for number in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # the folder itself
                held.append(os.readlink(f"/proc/self/fd/{number}"))
        note("descriptors", str(sum(name.startswith("socket:") for name in held)))
        os._exit(0)
    return waited(child)
