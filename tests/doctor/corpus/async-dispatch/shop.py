from flask import Flask, request
from flask.views import View

app = Flask(__name__)


class Upload(View):
    methods = ["POST"]

    async def dispatch_request(self):
        body = request.get_data()  # <- async-body
        return str(len(body))


app.add_url_rule("/u", view_func=Upload.as_view("u"))


@app.get("/")
def i():
    return "x"
