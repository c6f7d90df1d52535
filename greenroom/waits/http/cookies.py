"""Which request set a session's cookies: a shared session carries one user's cookies into another user's request.

That is what a `requests.Session` is for where a service logs in once, and a leak where users do. So it is only said.
"""

import logging
from typing import Any
from urllib.parse import urlsplit

from requests.cookies import RequestsCookieJar

from ...in_flight import CURRENT, Record
from ..naming import Once, request_name

logger = logging.getLogger(__name__)

# In the dictionary of a jar: for each host the key and the name of the request that had cookies set there last. Plain
# values, because sessions are pickled.
SET_IN = "_greenroom_set_in"
told = Once()


def key_of(record: Record) -> tuple[str, float]:
    return record.id, record.arrived


def note_set(jar: Any, url: Any) -> None:
    """An answer from `url` has set cookies in this jar. Runs on: any greenlet."""
    record = CURRENT.get()
    if record is not None and isinstance(jar, RequestsCookieJar):
        jar.__dict__.setdefault(SET_IN, {})[host_of(url)] = (key_of(record), request_name(record))


def note_sent(jar: Any, url: Any) -> None:
    """A request for `url` is about to be sent with this jar's cookies. Warns once for each host.

    Runs on: any greenlet.
    """
    set_in, record = jar.__dict__.get(SET_IN), CURRENT.get()
    if set_in is None or record is None:
        return
    host = host_of(url)
    key, name = set_in.get(host, (None, ""))
    if key is None or key == key_of(record) or not told.is_new(host):
        return
    logger.warning(
        "a requests.Session that requests share sends %s cookies to %s that were set in %s. If they are a user's, use "
        "a Session for each request; bare requests.get() and the like keep none",
        request_name(record),
        host,
        name,
    )


def host_of(url: Any) -> str:
    try:
        return urlsplit(url).hostname or "" if type(url) is str else ""
    except ValueError:
        return ""  # requests will complain of it
