"""Routes behind a login: `--login` and `--header` are sent along, and what was not seen all the same is said."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from ..load import target
from ..load.login import log_in
from ..load.session import Session
from ..load.units import LoadError
from .driving import Seen
from .log import last_error
from .plan import Skipped
from .server import Answer, Server

LOGIN_PAGE = re.compile(
    r"(?:^|[/_.-])(?:log-?in|sign-?in|auth|authenticate|authorize|sso|oauth2?|saml)(?:$|[/_.-])", re.IGNORECASE
)
REDIRECTS = (301, 302, 303, 307, 308)
LOGIN_SECONDS = 10.0


def log_in_at(server: Server, login: str, headers: Mapping[str, str]) -> str:
    """Let all later requests carry these headers and the login's; why it failed, "" when it did not."""
    server.headers = headers
    if not login:
        return ""
    session = Session(target.parse(f"http://127.0.0.1:{server.port}/"), LOGIN_SECONDS)
    try:
        log_in(session, login)
    except LoadError as exc:
        return str(exc)
    server.headers = {**session.shared_headers, **headers}
    return ""


def is_refused(answer: Answer) -> bool:
    """Whether the answer is that of somebody who is not logged in, or may not see it."""
    if answer.status in (401, 403, 407):
        return True
    return answer.status in REDIRECTS and bool(LOGIN_PAGE.search(urlsplit(answer.headers.get("location", "")).path))


def is_behind_login(seen: Seen) -> bool:
    answers = [one for one in seen.alone if one.status]
    return bool(answers) and all(is_refused(one) for one in answers)


def not_seen(seen: Seen, *, is_logged_in: bool, is_own: Callable[[str], bool]) -> Skipped | None:
    """Why the view's own code was not seen; None when it was."""
    answers = [one for one in seen.alone if one.status]
    statuses = sorted({one.status for one in answers})
    shown = ", ".join(str(status) for status in statuses)
    if is_behind_login(seen):
        place = urlsplit(answers[0].headers.get("location", "")).path
        how = f"redirected to {place}" if place else f"answered {shown}"
        if is_logged_in:
            return Skipped(seen.route.name, f"{how} in spite of the login: this user may not see it")
        scheme = answers[0].headers.get("www-authenticate", "").partition(" ")[0]
        told = (
            f"--header 'Authorization: {scheme} ...'"
            if scheme
            else f"--login 'POST {place or '/login'} ...', or --header"
        )
        return Skipped(seen.route.name, f"{how}, so it is behind a login: {told}")
    if answers and not any(200 <= status < 400 for status in statuses):
        error, place = last_error(seen.output, is_own)
        why = f", {error}" + (f" at {place}" if place else "") if error else ""
        return Skipped(seen.route.name, f"answered {shown}{why}: what is behind that was not seen")
    return None
