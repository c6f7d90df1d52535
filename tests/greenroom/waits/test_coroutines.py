"""Coroutines of views and their requests, in patched processes of their own."""

from .coroutine_process import check


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
