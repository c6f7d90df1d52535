"""Flask-Admin over SQLAlchemy: lists, forms, a row that is made and deleted."""

import fcntl
import os
import tempfile

from flask import Flask
from flask_admin import Admin
from flask_admin.contrib.sqla import ModelView
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SECRET_KEY"] = "adoption"
path = os.environ.get("ADOPTION_DATABASE", os.path.join(tempfile.gettempdir(), "adoption-admin.sqlite"))
app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{path}"
db = SQLAlchemy(app)


class Product(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(80), nullable=False)


admin = Admin(app, name="shop")
admin.add_view(ModelView(Product, db.session))


@app.get("/")
def index():
    return {"products": [product.name for product in db.session.query(Product).order_by(Product.id)]}


with app.app_context(), open(path + ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # one worker after the other
    db.create_all()
