"""Against the real database and the real cache."""
import pytest

from shop import catalogue, create_app


@pytest.fixture
def client():
    return create_app().test_client()


def test_the_seed_is_there(client):
    assert [(p["name"], p["stock"]) for p in client.get("/products").get_json()] == [("apple", 100), ("bread", 12), ("coffee", 40)]


def test_total_with_prices_of_the_database(client):
    assert client.post("/total", json={"bread": 2}).get_json() == {"cents": 500}
    assert client.post("/total", json={"unicorn": 1}).status_code == 400


def test_visitors_are_counted(client):
    assert [client.get("/").get_json()["visitors"] for _ in range(3)] == [1, 2, 3]


def test_selling(client):
    assert client.post("/sales", json={"product": "bread", "pieces": 10}).get_json() == {"left": 2}
    assert client.post("/sales", json={"product": "bread", "pieces": 3}).status_code == 409


def test_the_copy_is_writable():
    with catalogue.database() as db:
        db.execute("DELETE FROM product WHERE name = 'coffee'")
    assert [p["name"] for p in catalogue.products()] == ["apple", "bread"]
