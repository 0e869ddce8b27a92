"""Prices, in cents: money is never a float."""
PRICES = {"apple": 30, "bread": 250, "coffee": 480}


def total(basket):
    """Adds up a basket: article -> how many."""
    cents = 0
    for article, n in basket.items():
        if not isinstance(n, int) or n < 0:
            raise ValueError("how many %s: %r is not a number of articles" % (article, n))
        cents += PRICES[article] * n
    return cents
