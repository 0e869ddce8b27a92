"""Adding up. Prices are in cents: money is never a float."""


def total(prices, basket):
    """The price of a basket: article -> how many."""
    cents = 0
    for article, n in basket.items():
        if not isinstance(n, int) or n < 0:
            raise ValueError("how many %s: %r is not a number of articles" % (article, n))
        cents += prices[article] * n
    return cents
