"""Code with coroutines in a patched process of its own, where what hangs fails."""

from .patched import ROOT, run

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
    result = run(code, prepared=PREPARED)
    assert result.returncode == 0, result.stderr
