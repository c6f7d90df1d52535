"""A test client that fills in forms as a browser does."""

from typing import Any

from flask.testing import FlaskClient

from app.extensions import db
from app.models import User
from tests.support import PASSWORD, csrf_token


class Browser:
    """A test client that fills in forms as a browser does: it gets the page, and posts its token along."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str, **kwargs: Any) -> Any:
        return self.client.get(path, **kwargs)

    def post(self, path: str, page: str | None = None, **fields: str) -> Any:
        """Post `fields` to `path` with the token found on `page` (the form's own page unless told)."""
        token = csrf_token(self.client.get(page or path).text)
        return self.client.post(path, data={"csrf_token": token, **fields})

    def sign_in(self, email: str = "ann@example.org", password: str = PASSWORD) -> Any:
        return self.post("/sign-in", email=email, password=password)

    def begin_as(self, user_id: int) -> None:
        """Signed in as this user, without the 50 ms that comparing a password takes."""
        with self.client.application.app_context():
            session_user = db.session.get(User, user_id).get_id()
        with self.client.session_transaction() as session:
            session["_user_id"] = session_user

    def is_signed_in(self) -> bool:
        return self.client.get("/tokens").status_code == 200

    def session_id(self) -> str | None:
        cookie = self.client.get_cookie("session")
        return cookie.value if cookie else None
