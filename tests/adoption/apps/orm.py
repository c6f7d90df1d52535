"""SQLAlchemy's ORM with a session of its own, 1.4 and 2.0 alike."""

import fcntl
import os
import tempfile

from flask import Flask, request
from sqlalchemy import Column, Integer, String, __version__, create_engine
from sqlalchemy.orm import declarative_base, scoped_session, sessionmaker

path = os.environ.get("ADOPTION_DATABASE", os.path.join(tempfile.gettempdir(), "adoption-orm.sqlite"))
engine = create_engine(f"sqlite:///{path}")
Session = scoped_session(sessionmaker(bind=engine))
Base = declarative_base()
app = Flask(__name__)


class Note(Base):
    __tablename__ = "note"
    id = Column(Integer, primary_key=True)
    text = Column(String(100))


with open(path + ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # one worker after the other
    Base.metadata.create_all(engine)


@app.post("/notes")
def add():
    note = Note(text=request.get_json()["text"])
    Session.add(note)
    Session.commit()
    return {"id": note.id}, 201


@app.get("/notes")
def notes():
    return {"notes": [note.text for note in Session.query(Note).order_by(Note.id)], "series": __version__[0]}


@app.teardown_appcontext
def remove(_):
    Session.remove()
