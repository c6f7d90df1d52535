"""Work outside requests."""

from flask import Flask

from .config import Config


def init_app(app: Flask, config: Config) -> None:
    pass
