import os
from datetime import timedelta

from flask import Blueprint, Flask, render_template_string, url_for
from flask_login import LoginManager, UserMixin
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect

db = SQLAlchemy(engine_options={"pool_size": 20, "max_overflow": 0, "pool_timeout": 5})
login = LoginManager()
csrf = CSRFProtect()
bp = Blueprint("main", __name__)


class User(UserMixin, db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(50))


@login.user_loader
def load(uid):
    return db.session.get(User, int(uid))


@bp.route("/")
def index():
    return render_template_string("{{ u }} {{ current_user.is_authenticated }}", u=url_for("main.index"))


@bp.route("/users")
def users():
    rows = db.session.execute(db.select(User)).scalars().all() if False else []
    return {"users": [u.name for u in rows]}


def create_app():
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=os.environ.get("SECRET_KEY", "dev"),
        PERMANENT_SESSION_LIFETIME=timedelta(days=1),
        SQLALCHEMY_DATABASE_URI=os.environ.get("DATABASE_URL", "postgresql+psycopg2://localhost/shop"),
    )
    db.init_app(app)
    login.init_app(app)
    csrf.init_app(app)
    app.register_blueprint(bp)
    return app


app = create_app()
