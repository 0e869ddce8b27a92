import pytest

from shop.basket import total

PRICES = {"apple": 30, "bread": 250, "coffee": 480}


def test_total_is_in_cents():
    assert total(PRICES, {"apple": 3, "coffee": 1}) == 570


def test_empty_basket_is_free():
    assert total(PRICES, {}) == 0


@pytest.mark.parametrize("basket", [{"apple": -1}, {"apple": "two"}])
def test_odd_numbers_are_refused(basket):
    with pytest.raises(ValueError):
        total(PRICES, basket)


def test_unknown_article():
    with pytest.raises(KeyError):
        total(PRICES, {"unicorn": 1})
