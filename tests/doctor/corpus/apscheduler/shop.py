from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask

app = Flask(__name__)
scheduler = BackgroundScheduler()
scheduler.add_job(lambda: None, "interval", seconds=60)
scheduler.start()  # <- thread-at-import


@app.get("/")
def i():
    return "x"
