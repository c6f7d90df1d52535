from flask import Flask

try:
    from confluent_kafka import Producer  # <- driver-cannot-wait
except ImportError:
    Producer = None
app = Flask(__name__)


@app.get("/")
def i():
    return "x"
