"""Upstream HTTP: what `requests` sends its requests with, when `greenroom.patching` has installed it.

    requests.get / Session.send -> HTTPAdapter.send, replaced -> is it plain?  no: requests' own goes on, unseen
        yes -> Origin.take: a kept connection, or leave to open one
            -> Connection: request out, head in
            -> Answer, a urllib3 response -> body read to its end -> Origin.give_back

One pool per origin and process serves all sessions and the bare `requests.get()`: a connection carries no cookies and
no credentials, sessions keep theirs. What is not clear-cut (proxies, `Retry`, adapters of somebody's own, strange URLs)
goes the way it always went.
"""

import re

# The first and the last minor versions with which the tests of this package pass.
TESTED = {"requests": ((2, 32), (2, 34)), "urllib3": ((2, 5), (2, 8))}


def untested(versions: dict[str, str]) -> str:
    """A sentence on those of `versions`, by package, that we don't know; "" if there are none."""
    unknown = [
        f"{name} {version} (tested: {'.'.join(map(str, first))} to {'.'.join(map(str, last))})"
        for name, version in versions.items()
        for first, last in (TESTED[name],)
        if not first <= minor_of(version) <= last
    ]
    if not unknown:
        return ""
    return f"requests is left as it is, with connections for each session: Greenroom does not know {', '.join(unknown)}"


def minor_of(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
