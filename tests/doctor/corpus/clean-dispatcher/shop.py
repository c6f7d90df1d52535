"""Constants that requests read, settings that start-up writes, a class for views."""

import contextvars

from flask import Flask, request
from flask.views import MethodView

app = Flask(__name__)
PRICES = {"chair": 50, "table": 120}
HANDLERS = {}
tenant = contextvars.ContextVar("tenant", default="")


def handles(kind):
    def register(function):
        HANDLERS[kind] = function
        return function

    return register


@handles("price")
def price(item):
    return PRICES.get(item, 0)


class Items(MethodView):
    def get(self, item):
        tenant.set(request.args.get("tenant", "nobody"))
        return {"price": HANDLERS["price"](item), "tenant": tenant.get()}


app.add_url_rule("/items/<item>", view_func=Items.as_view("items"))
