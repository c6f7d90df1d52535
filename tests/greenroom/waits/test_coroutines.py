"""Coroutines in patched processes of their own."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# Patched, with a bound on everything: what hangs fails.
PREPARED = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from greenroom import patching
from greenroom.settings import Settings
patching.patch(Settings())
import contextvars, threading, time
import gevent
from gevent import monkey

thread_ident = monkey.get_original("_thread", "get_ident")
HERE = thread_ident()
LONG_WAIT_SECONDS = 30

def at_once(function, count=50):
    "What `count` greenlets get that call `function(number)` together."
    greenlets = [gevent.spawn(function, number) for number in range(count)]
    with gevent.Timeout(LONG_WAIT_SECONDS):
        gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]

def wait_until(condition):
    with gevent.Timeout(LONG_WAIT_SECONDS):
        while not condition():
            gevent.sleep(0.005)
"""


def check(code: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREPARED + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert result.returncode == 0, result.stderr


def test_asyncio_is_imported_by_nobody_but_the_application() -> None:
    check("assert 'asyncio' not in sys.modules; import flask; assert 'asyncio' not in sys.modules")


def test_fifty_async_views_wait_together_with_their_requests() -> None:
    check(
        """
        from flask import Flask, g, request
        assert "asgiref" not in sys.modules
        app = Flask("shop")
        waiting, most, threads, loops = [], [], set(), set()

        @app.get("/<int:number>")
        async def view(number):
            import asyncio
            waiting.append(number)
            most.append(len(waiting))
            threads.add(thread_ident())
            loops.add(asyncio.get_running_loop())
            g.seen = request.path
            while len(most) < 50:
                await asyncio.sleep(0.01)
            waiting.remove(number)
            return {"path": request.path}

        @app.after_request
        def tell(response):
            response.headers["X-Seen"] = g.get("seen", "")
            return response

        @app.errorhandler(LookupError)
        async def lost(exc):
            return {"lost": str(exc)}, 404

        @app.get("/lost")
        async def fail():
            raise LookupError("it")

        answers = at_once(lambda number: app.test_client().get(f"/{number}"))
        assert [answer.json["path"] for answer in answers] == [f"/{number}" for number in range(50)]
        assert [answer.headers["X-Seen"] for answer in answers] == [f"/{number}" for number in range(50)]
        assert max(most) == 50 and len(loops) == 50 and HERE not in threads
        assert app.test_client().get("/lost").json == {"lost": "it"}
        """
    )


def test_a_library_that_only_speaks_asyncio_is_called_by_fifty_at_once() -> None:
    check(
        """
        import asyncio, socket
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)

        def serve():
            while True:
                client, _ = listener.accept()
                gevent.spawn(lambda client=client: (client.sendall(client.recv(100)), client.close()))

        gevent.spawn(serve)

        async def ask(number):
            port = listener.getsockname()[1]
            reader, writer = await asyncio.open_connection("localhost", port, family=socket.AF_INET)
            writer.write(b"%d\\n" % number)
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
            slow = await asyncio.to_thread(lambda: (time.monotonic(), thread_ident()))
            assert slow[1] not in (HERE, thread_ident())
            return int(line)

        def by_own_loop(number):
            loop = asyncio.new_event_loop()
            try:
                return loop.run_until_complete(ask(number))
            finally:
                loop.close()

        def by_runner(number):
            with asyncio.Runner() as runner:
                return runner.run(ask(number))

        assert at_once(lambda number: asyncio.run(ask(number))) == list(range(50))
        assert at_once(by_own_loop, 20) == list(range(20))
        assert at_once(by_runner, 5) == list(range(5))
        assert at_once(lambda number: asyncio.run(ask(number), debug=False), 5) == list(range(5))
        """
    )


def test_it_ends_as_under_asyncio_run() -> None:
    check(
        """
        import asyncio, logging, traceback
        from contextvars import ContextVar
        logging.disable(logging.CRITICAL)
        user = ContextVar("user", default="nobody")
        ends = []

        async def stay():
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                ends.append("cancelled")
                raise

        async def leave_running():
            asyncio.create_task(stay())
            await asyncio.sleep(0.01)
            return asyncio.get_running_loop()

        assert asyncio.run(leave_running()).is_closed()
        assert ends == ["cancelled"]

        async def rename():
            before = user.get()
            user.set("ben")
            return before

        user.set("ann")
        assert asyncio.run(rename()) == "ann" and user.get() == "ann", "the loop has a copy of the context"
        from flask import Flask
        assert Flask("shop").async_to_sync(rename)() == "ann" and user.get() == "ben", "a view has none"

        async def fail(error):
            await asyncio.sleep(0)
            raise error

        for error in (LookupError("empty"), SystemExit(3), asyncio.CancelledError()):
            try:
                asyncio.run(fail(error))
            except BaseException as exc:
                assert type(exc) is type(error), exc
                assert ", in fail" in "".join(traceback.format_exception(exc))
            else:
                raise AssertionError(error)
        assert asyncio.run(rename()) == "ben", "it goes on after SystemExit"

        async def nested():
            coroutine = rename()
            try:
                asyncio.run(coroutine)
            finally:
                coroutine.close()

        for wrong, error, message in ((nested(), RuntimeError, "running event loop"), (7, ValueError, "coroutine")):
            try:
                asyncio.run(wrong)
            except error as exc:
                assert message in str(exc), exc
            else:
                raise AssertionError(message)
        """
    )


def test_at_the_end_of_the_budget_the_coroutine_is_cancelled_and_a_timeout_raised() -> None:
    check(
        """
        import asyncio
        from greenroom import clock
        from greenroom.in_flight import CURRENT, Record
        ends = []

        async def stay():
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                ends.append(1)
                raise

        def by_asgiref():
            from asgiref.sync import async_to_sync
            async_to_sync(stay)()

        def by_own_loop():
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(stay())
            finally:
                loop.close()

        def within(seconds, function):
            CURRENT.set(Record(arrived=clock.now(), deadline=clock.now() + seconds))
            try:
                function()
            except TimeoutError:
                return "timeout"

        for number, function in enumerate((lambda: asyncio.run(stay()), by_own_loop, by_asgiref), 1):
            with gevent.Timeout(LONG_WAIT_SECONDS):
                assert contextvars.copy_context().run(within, 0.1, function) == "timeout"
            wait_until(lambda: len(ends) == number)
            with gevent.Timeout(LONG_WAIT_SECONDS):
                assert contextvars.copy_context().run(within, 0.0, function) == "timeout"
        """
    )


def test_a_loop_that_a_thread_runs_for_ever_serves_others_and_disturbs_nobody() -> None:
    check(
        """
        import asyncio
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        wait_until(loop.is_running)

        async def double(number):
            await asyncio.sleep(0.01)
            return 2 * number

        def both(number):
            future = asyncio.run_coroutine_threadsafe(double(number), loop)
            return future.result(LONG_WAIT_SECONDS) + asyncio.run(double(number))

        assert at_once(both) == [4 * number for number in range(50)]
        loop.call_soon_threadsafe(loop.stop)
        """
    )


def test_no_greenlet_finds_the_loop_that_a_thread_runs() -> None:
    check(
        """
        import asyncio
        loop = asyncio.new_event_loop()

        def run():
            asyncio.set_event_loop(loop)
            loop.run_forever()

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(loop.is_running)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise AssertionError("it is another thread's")

        async def who():
            return threading.current_thread(), threading.get_ident(), asyncio.get_running_loop()

        current, ident, running = asyncio.run_coroutine_threadsafe(who(), loop).result(LONG_WAIT_SECONDS)
        assert (current, ident, running) == (thread, thread.ident, loop)
        with asyncio.Runner() as runner:
            assert runner.run(who())[2] is not loop
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LONG_WAIT_SECONDS)
        assert not thread.is_alive()
        loop.close()
        """
    )


def test_loops_with_other_selectors_run_in_forty_threads_and_views() -> None:
    check(
        """
        import asyncio, selectors

        async def work(number):
            await asyncio.sleep(0.01)
            return await asyncio.to_thread(lambda: number)

        def with_selector(number):
            kind = (selectors.PollSelector, selectors.SelectSelector, selectors.DefaultSelector)[number % 3]
            loop = asyncio.SelectorEventLoop(kind())
            try:
                return loop.run_until_complete(work(number))
            finally:
                loop.run_until_complete(loop.shutdown_default_executor())
                loop.close()

        assert at_once(with_selector, 40) == list(range(40))
        answers = []
        threads = [threading.Thread(target=lambda n=n: answers.append(with_selector(n))) for n in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG_WAIT_SECONDS)
        assert sorted(answers) == list(range(40))
        """
    )


def test_executors_serve_loops_whenever_they_were_made() -> None:
    check(
        """
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        before = ThreadPoolExecutor(2)
        assert before.submit(lambda: 1).result(LONG_WAIT_SECONDS) == 1

        async def use(executor):
            return await asyncio.get_running_loop().run_in_executor(executor, lambda: 2)

        async def make():
            with ThreadPoolExecutor(2) as executor:
                return await use(executor)

        with gevent.Timeout(LONG_WAIT_SECONDS):
            assert asyncio.run(use(before)) == asyncio.run(use(ThreadPoolExecutor(2))) == asyncio.run(make()) == 2
        loop = asyncio.new_event_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        with gevent.Timeout(LONG_WAIT_SECONDS):
            assert loop.run_until_complete(use(None)) == 2
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """
    )


def test_thread_that_a_real_thread_starts_runs_beside_it() -> None:
    check(
        """
        import asyncio

        def start_and_block():
            answers = []
            thread = threading.Thread(target=lambda: answers.append((thread_ident(), threading.current_thread())))
            thread.start()
            until = time.monotonic() + LONG_WAIT_SECONDS
            while not answers and time.monotonic() < until:
                pass  # it gives no turn to anything but threads
            thread.join(LONG_WAIT_SECONDS)
            assert not thread.is_alive()
            (ident, current), = answers
            assert current is thread and ident not in (HERE, thread_ident())
            return True

        async def in_coroutine():
            return start_and_block()

        assert asyncio.run(in_coroutine()) and asyncio.run(asyncio.to_thread(start_and_block))
        """
    )


def test_run_leaves_options_policy_and_errors_to_asyncio() -> None:
    check(
        """
        import asyncio, logging
        logging.disable(logging.CRITICAL)
        told = []

        async def debug():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
            return loop.get_debug()

        assert asyncio.run(debug(), debug=True) is True and asyncio.run(debug()) is False

        async def fail_when_cancelled():
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                raise LookupError("left over") from None

        async def leave_running():
            await debug()
            task = asyncio.create_task(fail_when_cancelled())
            await asyncio.sleep(0.01)
            return task

        asyncio.run(leave_running())
        assert [str(error) for error in told] == ["left over"]

        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self):
                loop = super().new_event_loop()
                loop.is_the_policy_s = True
                return loop

        async def loop():
            return asyncio.get_running_loop()

        asyncio.set_event_loop_policy(Policy())
        assert asyncio.run(loop()).is_the_policy_s
        asyncio.set_event_loop_policy(None)
        assert not hasattr(asyncio.run(loop()), "is_the_policy_s")
        """
    )


def test_coroutine_that_blocks_holds_up_no_other() -> None:
    check(
        """
        import asyncio
        blocks, goes_on = threading.Event(), threading.Event()

        async def block(number):
            blocks.set()
            assert goes_on.wait(LONG_WAIT_SECONDS)

        async def quick():
            await asyncio.sleep(0.01)

        blocked = gevent.spawn(lambda: asyncio.run(block(1)))
        assert blocks.wait(LONG_WAIT_SECONDS)
        with gevent.Timeout(LONG_WAIT_SECONDS):
            asyncio.run(quick())
            assert not blocked.ready()
            goes_on.set()
            blocked.get()
        """
    )


def test_a_socket_that_a_view_opened_can_be_used_in_threads_as_well() -> None:
    check(
        """
        import asyncio, socket
        ours, theirs = socket.socketpair()
        ours.settimeout(LONG_WAIT_SECONDS)

        def answer():
            while question := theirs.recv(100):
                gevent.sleep(0.001)
                theirs.sendall(question)

        gevent.spawn(answer)

        def ask(number):
            ours.sendall(b"%d" % number)
            return int(ours.recv(100))

        async def in_coroutine(number):
            return ask(number)

        with gevent.Timeout(LONG_WAIT_SECONDS):
            for number in range(0, 300, 3):
                assert ask(number) == number
                assert asyncio.run(asyncio.to_thread(ask, number + 1)) == number + 1
                assert asyncio.run(in_coroutine(number + 2)) == number + 2
            ours.settimeout(0.05)
            for asked in (lambda: ours.recv(1), lambda: asyncio.run(asyncio.to_thread(ours.recv, 1))):
                try:
                    asked()
                except TimeoutError as exc:
                    assert str(exc) == "timed out"
                else:
                    raise AssertionError("there was nothing to read")
        """
    )


def test_a_socket_that_a_thread_opened_can_be_used_in_views_as_well() -> None:
    check(
        """
        import asyncio, gc, os, socket
        server = socket.create_server(("127.0.0.1", 0))

        def echo(sock):
            while data := sock.recv(100):
                sock.sendall(data)
            sock.close()

        def serve():
            while True:
                gevent.spawn(echo, server.accept()[0])

        gevent.spawn(serve)

        def connect():
            sock = socket.create_connection(("127.0.0.1", server.getsockname()[1]), LONG_WAIT_SECONDS)
            sock.sendall(b"a")
            assert sock.recv(10) == b"a"
            return sock

        def ask(sock, data):
            sock.sendall(data)
            return sock.recv(10)

        with gevent.Timeout(LONG_WAIT_SECONDS):
            before = len(os.listdir("/proc/self/fd"))
            for number in range(40):
                sock = asyncio.run(asyncio.to_thread(connect))
                assert ask(sock, b"b") == b"b", "in a greenlet"
                assert asyncio.run(asyncio.to_thread(ask, sock, b"c")) == b"c"
                sock.close()

        def is_gone():
            gc.collect()
            return len(os.listdir("/proc/self/fd")) <= before + 4

        wait_until(is_gone)
        """
    )


def test_the_event_loop_of_a_thread_goes_with_it() -> None:
    check(
        """
        import gc, os
        from greenroom.waits import children
        children.install()
        from greenroom.waits.threads import start_thread
        before = len(os.listdir("/proc/self/fd"))
        ended = []

        def work():
            gevent.sleep(0.001)
            ended.append(gevent.get_hub().loop)

        for _ in range(20):
            start_thread(work)
        wait_until(lambda: len(ended) == 20 and not any(loop.ptr for loop in ended))
        assert len(os.listdir("/proc/self/fd")) <= before + 4
        """
    )


def test_coroutines_and_their_threads_use_the_same_database_pool_as_views(postgres_url: str) -> None:
    check(
        f"""
        import asyncio
        from sqlalchemy import create_engine, text
        engine = create_engine({postgres_url.replace("postgresql:", "postgresql+psycopg2:")!r})

        def query(number):
            with engine.connect() as connection:
                return connection.execute(text("SELECT pg_sleep(0.005), :number"), {{"number": number}}).one()[1]

        async def in_coroutine(number):
            await asyncio.sleep(0.001)
            return query(number)

        async def in_its_thread(number):
            return await asyncio.to_thread(query, number)

        def in_a_way(number):
            if number % 3 == 0:
                return query(number)
            return asyncio.run(in_coroutine(number) if number % 3 == 1 else in_its_thread(number))

        assert at_once(in_a_way, 60) == list(range(60))
        assert engine.pool.checkedout() == 0
        """
    )


def test_asgiref_brings_blocking_code_back_to_the_thread_of_its_caller_for_fifty_at_once() -> None:
    check(
        """
        from asgiref.sync import async_to_sync, sync_to_async
        from flask import Flask
        local, running = threading.local(), []

        def blocking():
            running.append(1)
            wait_until(lambda: len(running) >= 50)
            assert thread_ident() == HERE
            return threading.current_thread(), local.number

        async def view():
            assert thread_ident() != HERE
            return await sync_to_async(blocking)()

        def call(function):
            def caller(number):
                local.number = number
                assert function() == (threading.current_thread(), number)
            return caller

        at_once(call(async_to_sync(view)))
        running.clear()
        at_once(call(Flask("shop").async_to_sync(view)))

        async def fail():
            raise LookupError("empty")

        async def nested():
            return await sync_to_async(async_to_sync(fail))()

        try:
            async_to_sync(nested)()
        except LookupError as exc:
            assert str(exc) == "empty"
        else:
            raise AssertionError
        """
    )


def test_the_clean_up_of_what_asgiref_runs_is_done_by_its_caller_after_the_budget() -> None:
    check(
        """
        import asyncio
        from asgiref.sync import async_to_sync, sync_to_async
        from greenroom import clock
        from greenroom.in_flight import CURRENT, Record
        cleaned = []

        async def stay():
            try:
                await asyncio.sleep(1000)
            finally:
                await sync_to_async(lambda: cleaned.append(threading.current_thread()))()

        def spend():
            CURRENT.set(Record(arrived=clock.now(), deadline=clock.now() + 0.1))
            try:
                async_to_sync(stay)()
            except TimeoutError:
                return "timeout"

        with gevent.Timeout(LONG_WAIT_SECONDS):
            assert contextvars.copy_context().run(spend) == "timeout"
        assert cleaned == [threading.current_thread()]
        """
    )


def test_sync_to_async_without_a_caller_in_blocking_code_has_a_real_thread() -> None:
    check(
        """
        import asyncio
        from asgiref.sync import sync_to_async

        async def ask():
            return await sync_to_async(thread_ident)()

        assert asyncio.run(ask()) != HERE
        """
    )


def test_a_loop_for_which_there_is_no_descriptor_leaves_nothing_behind() -> None:
    check(
        """
        import collections, errno, gc, os, resource, warnings
        from flask import Flask
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        noise = []
        sys.unraisablehook = lambda unraisable: noise.append((unraisable.object, unraisable.exc_value))
        warnings.showwarning = lambda message, *_: noise.append(message)
        warnings.simplefilter("always")

        async def view():
            return "reached"

        call = Flask("shop").async_to_sync(view)
        assert call() == "reached"

        def descriptors():
            return len(os.listdir("/proc/self/fd"))

        before = descriptors()
        for left in range(4):
            held = []
            try:
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
            for _ in range(left):
                os.close(held.pop())
            try:
                answer = call()
            except OSError as exc:
                answer = exc.errno
            assert answer == (errno.EMFILE if left < 3 else "reached"), "epoll, and two ends of a pipe"
            for each in held:
                os.close(each)
        gc.collect()
        assert descriptors() == before, descriptors()
        assert not noise, noise
        """
    )


def test_it_can_be_left_alone() -> None:
    check(
        """
        import subprocess
        subprocess.run([sys.executable, "-W", "error", "-c", '''
import sys; sys.path.insert(0, %r)
from greenroom import patching
from greenroom.settings import Settings
patching.patch(Settings(patch_asyncio=False))
import asyncio, flask
assert asyncio.run.__module__ == "asyncio.runners" and not hasattr(asyncio.run, "__wrapped__")
assert not hasattr(flask.Flask.async_to_sync, "__wrapped__")
''' % sys.path[0]], check=True)
        """
    )
