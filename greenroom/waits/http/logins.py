"""Logins that belong to a connection, and so to the session that made it.

With NTLM and Negotiate the other side remembers who logged in on a connection, and takes whatever comes on it for
theirs (RFC 4559, section 6). With the schemes below each request says by itself whose it is. So the rule is the other
way round: a scheme that is not known to be like that, or none where there should be one, may bind the connection.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# RFC 7617, 6750, 7616, 9449, 5849, and the signatures of AWS: complete in each request.
OF_A_REQUEST = frozenset(("basic", "bearer", "digest", "dpop", "oauth", "aws4-hmac-sha256"))
CREDENTIALS = ("authorization", "proxy-authorization")
# Header fields of an answer that takes part in logging in. IIS and Squid use Persistent-Auth for NTLM.
CHALLENGES = ("www-authenticate", "proxy-authenticate", "persistent-auth", "proxy-support")
_CHALLENGES = frozenset(CHALLENGES)
UNAUTHORIZED = (401, 407)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def in_request(store: Mapping[str, Any]) -> bool:
    """Whether a request with these fields (those of a CaseInsensitiveDict) may log its connection in."""
    return any(name in store and not _is_of_a_request(_text(store[name][1])) for name in CREDENTIALS)


def in_answer(status: int, names: Iterable[str], values: Callable[[str], Iterable[str]]) -> bool:
    """Whether an answer may be about a login of its connection. `names` of its fields are in lower case."""
    said = _CHALLENGES.intersection(names)
    if not said:
        return status in UNAUTHORIZED  # without a word on how: a scheme of somebody's own
    return any(not _are_of_a_request(value) for name in said for value in values(name))


def _are_of_a_request(challenges: str) -> bool:
    """Whether all schemes of a field are such. A field has challenges and their parameters, all between commas."""
    for part in _QUOTED.sub("", challenges).split(","):
        words = part.split()
        is_parameter = not words or "=" in words[0] or (len(words) > 1 and words[1].startswith("="))
        if not (is_parameter or words[0].lower() in OF_A_REQUEST):
            return False
    return True


def _is_of_a_request(credentials: str) -> bool:
    scheme, space, _ = credentials.strip().partition(" ")
    return bool(space) and scheme.lower() in OF_A_REQUEST


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
