"""A shop with a basket. Configuration comes from the environment (12-factor)."""
import os

from flask import Flask, abort, jsonify, request

from .prices import PRICES, total


def create_app():
    app = Flask(__name__)
    app.config["SHOP_NAME"] = os.environ.get("SHOP_NAME", "a shop")

    @app.get("/healthz")
    def healthz():
        return jsonify(ok=True, shop=app.config["SHOP_NAME"])

    @app.get("/prices")
    def prices():
        return jsonify(PRICES)

    @app.post("/total")
    def basket_total():
        try:
            return jsonify(cents=total(request.get_json()))
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            abort(400, description=str(err))

    return app
