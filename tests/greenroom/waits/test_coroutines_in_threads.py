"""Event loops, executors and sockets of coroutines in threads, in patched processes of their own."""

from .coroutine_process import check


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
