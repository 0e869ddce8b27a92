"""A shop. What it sells is in its database; where that is, the environment says (12-factor)."""
import os

from flask import Flask, abort, jsonify, request

from . import catalogue, visitors
from .basket import total


def create_app():
    app = Flask(__name__)
    name = os.environ.get("SHOP_NAME", "a shop")

    @app.get("/healthz")
    def healthz():
        catalogue.products()
        return jsonify(ok=True, shop=name)

    @app.get("/")
    def front():
        return jsonify(shop=name, visitors=visitors.count(), products=[p["name"] for p in catalogue.products()])

    @app.get("/products")
    def products():
        return jsonify(catalogue.products())

    @app.post("/total")
    def basket_total():
        prices = {p["name"]: p["cents"] for p in catalogue.products()}
        try:
            return jsonify(cents=total(prices, request.get_json()))
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            abort(400, description=str(err))

    @app.post("/sales")
    def sell():
        sale = request.get_json()
        try:
            return jsonify(left=catalogue.sell(sale["product"], sale["pieces"])), 201
        except catalogue.SoldOut as err:
            abort(409, description=str(err))

    return app
