import pytest

from shop import create_app
from shop.prices import total


@pytest.fixture
def client():
    return create_app().test_client()


def test_total_is_in_cents():
    assert total({"apple": 3, "coffee": 1}) == 570


def test_empty_basket_is_free():
    assert total({}) == 0


@pytest.mark.parametrize("basket", [{"apple": -1}, {"apple": "two"}])
def test_odd_numbers_are_refused(basket):
    with pytest.raises(ValueError):
        total(basket)


def test_total_over_http(client):
    answer = client.post("/total", json={"bread": 2})
    assert answer.status_code == 200
    assert answer.get_json() == {"cents": 500}


def test_unknown_article_is_the_callers_fault(client):
    assert client.post("/total", json={"unicorn": 1}).status_code == 400


def test_health(client):
    assert client.get("/healthz").get_json()["ok"] is True
