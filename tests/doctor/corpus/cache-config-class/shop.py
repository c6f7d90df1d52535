from flask import Flask


class Config:
    CACHE_TYPE = "flask_caching.backends.SimpleCache"  # <- per-worker-state


app = Flask(__name__)
app.config.from_object(Config)


@app.get("/")
def i():
    return "x"
