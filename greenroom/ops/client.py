"""Asking a running ops process, from a terminal on the same machine (or wherever the address leads)."""

import http.client
import json
from typing import Any
from urllib.parse import quote

from ..errors import GreenroomError
from .shapes import Stacks, Verdict, View

TIMEOUT_SECONDS = 10.0
# Wildcard addresses are for listening.
REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class OpsError(GreenroomError):
    """The ops process does not answer, or refuses; the message says what to do."""


class Client:
    """Runs on: a command of a person's."""

    def __init__(self, address: tuple[str, int], token: str, *, is_terminal: bool = True) -> None:
        self.host, self.port = REACHABLE.get(address[0], address[0]), address[1]
        self.token = token
        self.is_terminal = is_terminal

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    def view(self) -> View:
        found: Any = self._json("/view")
        view: View = found
        return view

    def verdict(self) -> Verdict:
        """The verdict alone; {} before the ops process has looked for the first time."""
        found: Any = self._json("/verdict")
        verdict: Verdict = found
        return verdict

    def stacks(self, pid: int, request_id: str) -> Stacks:
        found: Any = self._json(f"/request/{pid}/{quote(request_id, safe='')}", allowed=(200, 504))
        stacks: Stacks = found
        return stacks

    def everything(self) -> str:
        return self._get("/everything").decode("utf-8", "replace")

    def _json(self, path: str, allowed: tuple[int, ...] = (200,)) -> dict[str, Any]:
        body = self._get(path, allowed)
        try:
            answer = json.loads(body)
        except ValueError as exc:
            raise OpsError(f"what answers at {self.url} is no ops page of Greenroom's") from exc
        if not isinstance(answer, dict):
            raise OpsError(f"what answers at {self.url} is no ops page of Greenroom's")
        return answer

    def _get(self, path: str, allowed: tuple[int, ...] = (200,)) -> bytes:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        except ConnectionRefusedError as exc:
            raise OpsError(
                f"nothing listens at {self.url}: the server does not run, or its GREENROOM_OPS_BIND is another "
                "(pass it with --at), or another worker class than `greenroom` is used"
            ) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise OpsError(f"the ops page at {self.url} does not answer: {exc}") from exc
        finally:
            connection.close()
        if response.status in allowed:
            return body
        if response.status == 401:
            given = (
                "the GREENROOM_OPS_TOKEN given is another than the server's" if self.token else "it asks for a token"
            )
            raise OpsError(f"the ops page at {self.url} refuses: {given}; set GREENROOM_OPS_TOKEN as the server has it")
        words = body[:300].decode("utf-8", "replace").strip()
        raise OpsError(f"the ops page at {self.url} answers {response.status}: {words}")
