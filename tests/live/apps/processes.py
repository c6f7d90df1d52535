"""multiprocessing and subprocess, from views and at import, as applications use them."""

import asyncio
import fcntl
import multiprocessing
import os
import pty
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import multiprocess
from flask import Flask, request

FOLDER = Path(os.environ["FORKS_FOLDER"])
app = Flask(__name__)
fork = multiprocessing.get_context("fork")

# A logger with a queue and a thread of its own, as loguru's `enqueue=True` makes at import.
lines = fork.SimpleQueue()


def write_lines() -> None:
    while (line := lines.get()) is not None:
        with (FOLDER / "log").open("a") as file:
            file.write(line + "\n")


threading.Thread(target=write_lines, daemon=True).start()
lines.put("imported")
if os.environ.get("HANGS_AT_IMPORT"):
    os.read(os.pipe()[0], 1)


def hook() -> None:
    """Act as an agent in each forked child: start again, with processes and threads of its own."""
    with (FOLDER / "hooks").open("a") as file:
        file.write(f"{os.getpid()}\n")


os.register_at_fork(after_in_child=hook)


def square(number: int) -> int:
    return number * number


if os.environ.get("PROCESSES_AT_IMPORT"):
    at_import = fork.Pool(2)
    manager = fork.Manager()
    shared = manager.dict(at="import")


def answer(end: Any) -> None:
    time.sleep(0.3)
    end.send(end.recv() * 2)


def put(queue: Any) -> None:
    queue.put("put")


def fill(shared: Any) -> None:
    shared["by"] = "child"


@app.get("/readyz")
def ready() -> str:
    return "ready"


@app.get("/pool/<method>")
def pool(method: str) -> list[int]:
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(abs, [-1, 2])


@app.get("/pool-of-import")
def pool_of_import() -> list[Any]:
    return [at_import.map(square, range(4)), dict(shared)]


@app.get("/manager")
def with_manager() -> dict[str, str]:
    with fork.Manager() as manager:
        shared = manager.dict()
        process = fork.Process(target=fill, args=(shared,))
        process.start()
        process.join()
        return dict(shared)


@app.get("/pipe")
def pipe() -> str:
    ours, childs = fork.Pipe()
    process = fork.Process(target=answer, args=(childs,))
    process.start()
    assert not ours.poll(0.05)
    ours.send("much" * 100_000)
    said = ours.recv()
    process.join(10)
    return str(len(said))


@app.get("/queues/<name>/<method>")
def queues(name: str, method: str) -> str:
    context = multiprocessing.get_context(method)
    queue = getattr(context, name)()
    process = context.Process(target=put, args=(queue,))
    process.start()
    said = queue.get()
    process.join()
    return str(said)


@app.get("/semaphores")
def semaphores() -> list[bool]:
    lock, event = fork.Lock(), fork.Event()
    process = fork.Process(target=event.set)
    with lock:
        found = [lock.acquire(timeout=0.1), lock.acquire(block=False)]
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(lock.acquire)
            time.sleep(0.05)
            lock.release()
            found.append(later.result())
        process.start()
        found.append(event.wait(10))
    process.join()
    return found


@app.get("/executor")
def executor() -> list[int]:
    with ProcessPoolExecutor(2, mp_context=fork) as pool:
        return list(pool.map(square, range(4)))


@app.get("/log")
def log() -> str:
    for number in range(50):
        lines.put(f"line {number}")
    return "logged"


def code(number: int) -> int:
    return subprocess.run(["sh", "-c", f"sleep 0.2; exit {number}"]).returncode


@app.get("/three-at-once")
def three_at_once() -> list[int]:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(code, (3, 4, 5)))


@app.get("/preexec")
def preexec() -> str:
    return subprocess.run(["pwd"], preexec_fn=lambda: os.chdir("/"), capture_output=True, text=True).stdout.strip()


@app.get("/talks")
def talks() -> str:
    """A line in, a line out, several times; the pipes are waited for in the loop."""
    program = "import sys\nfor line in sys.stdin: print(line.strip().upper(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = []
        for word in ("one", "two"):
            process.stdin.write(word + "\n")
            said.append(process.stdout.readline().strip())
        process.stdin.close()
    return " ".join(said)


@app.get("/timeout")
def timeout() -> str:
    try:
        subprocess.run(["sleep", "20"], timeout=float(request.args["s"]))
    except subprocess.TimeoutExpired as exc:
        return f"too late: {exc.timeout > 0}"
    return "in time"


@app.get("/closes")
def closes() -> str:
    """A reader of a pipe sees its end as soon as the other end is closed."""
    reader, writer = os.pipe()
    os.write(writer, b"said")
    os.close(writer)
    said = os.read(reader, 10) + os.read(reader, 10)
    os.close(reader)
    try:
        os.close(reader)
    except OSError as exc:
        return f"{said.decode()} {exc.errno}"
    return said.decode()


SHORT = "sleep 0.5"


def pipe_between_threads() -> str:
    """Send more than the pipe holds, both ways round."""
    reading, writing = os.pipe()
    threading.Timer(0.5, lambda: (os.write(writing, b"x" * 300_000), os.close(writing))).start()
    size = 0
    while data := os.read(reading, 65_536):
        size += len(data)
    os.close(reading)
    return str(size)


def file_between_threads() -> str:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "w", encoding="utf-8") as file:
            time.sleep(0.5)
            file.write("lines\n" * 50_000)

    threading.Thread(target=write).start()
    with os.fdopen(reading) as file:
        return str(len(file.readlines()))


def not_blocking() -> str:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        os.read(reading, 1)
    except BlockingIOError:
        return "would block"
    finally:
        os.close(reading)
        os.close(writing)
    return "read"


def terminal() -> str:
    pid, fd = pty.fork()
    if not pid:
        os.execvp("sh", ["sh", "-c", f"{SHORT}; echo said"])
    said = b""
    try:
        while data := os.read(fd, 100):
            said += data
    except OSError:  # the other side is closed
        os.close(fd)
    return said.decode().strip() + str(os.waitpid(pid, 0)[1])


def file_locks() -> str:
    path = FOLDER / "locked"
    code = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
    code += "fcntl.flock(f, fcntl.LOCK_EX); print('has it', flush=True); time.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        with path.open("w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            fcntl.flock(file, fcntl.LOCK_EX)
    return "locked"


def started() -> int:
    return subprocess.Popen(["sh", "-c", f"{SHORT}; exit 3"]).pid


def forked() -> int:
    if not (pid := os.fork()):
        time.sleep(0.5)
        os._exit(3)
    return pid


def spawned() -> str:
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0.5,))
    child.start()
    child.join()
    return str(child.exitcode)


def greens() -> str:
    import gevent.subprocess

    return str(gevent.subprocess.check_output(["sh", "-c", f"{SHORT}; echo said"], text=True))


async def from_coroutine() -> str:
    child = await asyncio.create_subprocess_exec("sh", "-c", f"{SHORT}; echo said", stdout=asyncio.subprocess.PIPE)
    said, _ = await child.communicate()
    return f"{said.decode().strip()} {child.returncode}"


def real_thread() -> str:
    return asyncio.run(asyncio.to_thread(lambda: subprocess.run(f"{SHORT}; exit 3", shell=True).returncode))


def multiprocess_pool() -> str:
    """dill's copy, which takes a lambda: its pipes and its semaphores."""
    context = multiprocess.get_context("fork")
    lock, event, queue = context.Lock(), context.Event(), context.Queue()
    with lock:
        found = [lock.acquire(timeout=0.5)]
    setter = context.Process(target=lambda: (time.sleep(0.5), queue.put("put"), event.set()))
    setter.start()
    found += [event.wait(10), queue.get()]
    setter.join()
    with context.Pool(2) as pool:
        return str([*found, *pool.map(lambda number: time.sleep(0.5) or number * number, range(3))])


WAYS = {
    "system": lambda: str(os.waitstatus_to_exitcode(os.system(f"{SHORT}; exit 3"))),
    "popen": lambda: os.popen(f"{SHORT}; echo said").read(),
    "spawn": lambda: str(os.spawnlp(os.P_WAIT, "sh", "sh", "-c", f"{SHORT}; exit 3")),
    "waitpid": lambda: str(os.waitpid(started(), 0)[1] >> 8),
    "waitid": lambda: str(os.waitid(os.P_PID, started(), os.WEXITED).si_status),
    "wait4": lambda: str(os.wait4(started(), 0)[1] >> 8),
    "wait": lambda: str((started(), os.wait()[1] >> 8)[1]),
    "wait3": lambda: str((forked(), os.wait3(0)[1] >> 8)[1]),
    "wait4-forked": lambda: str(os.wait4(forked(), 0)[1] >> 8),
    "multiprocessing-spawn": spawned,
    "multiprocess": multiprocess_pool,
    "pipe": pipe_between_threads,
    "pipe-file": file_between_threads,
    "pipe-not-blocking": not_blocking,
    "terminal": terminal,
    "file-locks": file_locks,
    "gevent.subprocess": greens,
    "asyncio": lambda: asyncio.run(from_coroutine()),
    "real-thread": real_thread,
}


@app.get("/way/<name>")
def way(name: str) -> str:
    return str(WAYS[name]())
