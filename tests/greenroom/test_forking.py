"""Forks while no descriptor is left, in processes of their own."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREPARED = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from greenroom import forking, patching
from greenroom.settings import Settings
patching.patch(Settings())
import os, resource
import gevent
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

def take_all():
    try:
        while True:
            os.open(os.devnull, os.O_RDONLY)
    except OSError:
        pass

def code_of(child):
    with gevent.Timeout(30):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def check(code: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PREPARED + textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "libev" not in result.stderr, result.stderr


def test_a_worker_s_loop_is_its_own_before_its_first_request_can_take_all_descriptors() -> None:
    check(
        """
        gevent.sleep(0.001)
        child = os.fork()
        if not child:
            gevent.reinit()
            forking.renew_loop()
            take_all()
            gevent.sleep(0.001)
            os._exit(7)
        assert code_of(child) == 7
        """
    )


def test_a_child_that_is_forked_without_a_descriptor_left_does_what_it_is_forked_for() -> None:
    check(
        """
        forking.arm()
        take_all()

        def fork():
            child = os.fork()
            if not child:
                gevent.sleep(0.001)
                os._exit(7)
            return code_of(child)

        assert fork() == 7, "the main greenlet forks"
        assert gevent.spawn(fork).get() == 7
        """
    )
