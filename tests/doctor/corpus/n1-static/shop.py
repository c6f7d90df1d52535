from flask import Flask, jsonify
from models import Author, Book, db

app = Flask(__name__)
app.config.from_mapping(SQLALCHEMY_DATABASE_URI="sqlite:///:memory:")
db.init_app(app)


@app.post("/authors")
def authors():
    out = []
    for author in Author.query.all():
        books = Book.query.filter_by(author_id=author.id).count()  # <- n-plus-one
        out.append((author.name, books))
    return jsonify(out)


@app.get("/")
def i():
    return "x"
