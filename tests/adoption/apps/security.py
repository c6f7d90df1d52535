"""Flask-Security: signing in with a hashed password, a page for those who are."""

import fcntl
import os
import tempfile

from flask import Flask
from flask_security import Security, SQLAlchemyUserDatastore, auth_required, current_user, hash_password
from flask_security.models import fsqla_v3 as models
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
path = os.environ.get("ADOPTION_DATABASE", os.path.join(tempfile.gettempdir(), "adoption-security.sqlite"))
app.config.update(
    SECRET_KEY="adoption",
    SECURITY_PASSWORD_SALT="146585145368132386173505678016728509634",
    SECURITY_PASSWORD_HASH="argon2",
    SECURITY_EMAIL_VALIDATOR_ARGS={"check_deliverability": False},
    WTF_CSRF_ENABLED=False,
    SQLALCHEMY_DATABASE_URI=f"sqlite:///{path}",
)
db = SQLAlchemy(app)
models.FsModels.set_db_info(db)


class Role(db.Model, models.FsRoleMixin):
    pass


class User(db.Model, models.FsUserMixin):
    pass


app.security = Security(app, SQLAlchemyUserDatastore(db, User, Role))


@app.get("/me")
@auth_required("session")
def me():
    return {"email": current_user.email}


with app.app_context(), open(path + ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # one worker after the other
    db.create_all()
    if not app.security.datastore.find_user(email="me@example.org"):
        app.security.datastore.create_user(email="me@example.org", password=hash_password("password"))
        db.session.commit()
