import requests
from flask import Blueprint, Flask, jsonify
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()
bp = Blueprint("orders", __name__)


class Order(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    sku = db.Column(db.String(30))


@bp.route("/orders/<int:order_id>")
def order(order_id):
    order = db.session.get(Order, order_id)
    price = requests.get("http://127.0.0.1:9/price", timeout=3).json()  # <- held-connection
    return jsonify(order=order.sku, price=price)


@bp.route("/q")
def q():
    orders = Order.query.filter_by(sku="a").all()
    r = requests.get("http://127.0.0.1:9/price", timeout=3)  # <- held-connection
    return str(len(orders)) + r.text


@bp.route("/fine")
def fine():
    order = Order.query.first()
    sku = order.sku
    db.session.commit()
    r = requests.get("http://127.0.0.1:9/price", timeout=3)
    return sku + r.text


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///:memory:"
    db.init_app(app)
    app.register_blueprint(bp)
    return app


app = create_app()
