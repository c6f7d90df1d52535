from flask import Flask

try:
    import grpc  # <- driver-cannot-wait
except ImportError:
    grpc = None
app = Flask(__name__)


@app.get("/")
def i():
    return "x"
