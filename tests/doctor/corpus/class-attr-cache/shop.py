from flask import Flask

app = Flask(__name__)


class Repo:
    _cache = {}  # <- per-worker-state

    def get(self, key):
        if key not in self._cache:
            self._cache[key] = key.upper()
        return self._cache[key]


repo = Repo()


@app.get("/r/<key>")
def r(key):
    return repo.get(key)
