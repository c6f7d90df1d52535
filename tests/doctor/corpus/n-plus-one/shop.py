"""Each author is loaded by itself, when it is looked at."""

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.pool import StaticPool

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///:memory:"
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": StaticPool}
db = SQLAlchemy(app)


class Author(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Book(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(db.ForeignKey("author.id"))
    author: Mapped[Author] = relationship()


with app.app_context():
    db.create_all()
    db.session.add_all(Book(author=Author(name=f"author {number}")) for number in range(20))
    db.session.commit()


@app.get("/books")
def books():
    found = db.session.scalars(db.select(Book)).all()
    return {"authors": [book.author.name for book in found]}  # <- n-plus-one
