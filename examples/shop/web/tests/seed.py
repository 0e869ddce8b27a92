"""The seed as it was made, whatever other tests did to their copies of it."""
from shop import catalogue

rows = [(p["name"], p["cents"], p["stock"]) for p in catalogue.products()]
assert rows == [("apple", 30, 100), ("bread", 250, 12), ("coffee", 480, 40)], rows
with catalogue.database() as db:
    db.execute("SELECT COUNT(*) AS sales FROM sale")
    assert db.fetchone()["sales"] == 0
print("all", len(rows), "products, nothing sold")
