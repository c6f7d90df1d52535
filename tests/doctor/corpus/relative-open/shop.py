from flask import Flask

app = Flask(__name__)
app.config["UPLOAD_FOLDER"] = "uploads"  # <- relative-path


@app.post("/x")
def x():
    with open("data/prices.json") as f:  # <- relative-path
        return f.read()


@app.get("/")
def i():
    return "x"
