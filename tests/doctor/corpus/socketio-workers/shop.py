"""A chat by Socket.IO, and several workers."""

from flask import Flask
from flask_socketio import SocketIO, emit

socketio = SocketIO(cors_allowed_origins="*")  # <- per-worker-state # <- socketio-mode


def create_app():
    app = Flask(__name__)
    socketio.init_app(app)

    @app.get("/")
    def index():
        return "shop"

    return app


@socketio.on("say")
def say(words):
    emit("said", words, broadcast=True)


app = create_app()
