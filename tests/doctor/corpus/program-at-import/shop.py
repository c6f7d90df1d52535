"""The version is asked of another program."""

import subprocess
import sys

from flask import Flask

VERSION = subprocess.run(  # <- process-at-import
    [sys.executable, "-c", "print('1.2')"], capture_output=True, text=True, check=False
).stdout.strip()
app = Flask(__name__)


@app.get("/")
def index():
    return VERSION
