from flask import Flask

app = Flask(__name__)
visits = 0


@app.get("/")
def i():
    global visits
    visits += 1  # <- per-worker-state
    return str(visits)
