"""What is sold, in the database of DATABASE_URL (mysql://USER:PASSWORD@HOST[:PORT]/NAME)."""
import os
from contextlib import contextmanager
from urllib.parse import urlsplit

import pymysql


class SoldOut(Exception):
    """More was asked for than there is."""


@contextmanager
def database():
    at = urlsplit(os.environ["DATABASE_URL"])
    db = pymysql.connect(host=at.hostname, port=at.port or 3306, user=at.username, password=at.password or "",
                         database=at.path.lstrip("/"), connect_timeout=5, cursorclass=pymysql.cursors.DictCursor)
    try:
        with db.cursor() as cursor:
            yield cursor
        db.commit()
    finally:
        db.close()


def products():
    with database() as db:
        db.execute("SELECT id, name, cents, stock FROM product ORDER BY id")
        return list(db.fetchall())


def sell(product, pieces):
    """Sells, and says how many are left. The database decides: two buyers never get the last one."""
    with database() as db:
        if not db.execute("UPDATE product SET stock = stock - %s WHERE name = %s AND stock >= %s", (pieces, product, pieces)):
            raise SoldOut("there are no %d of %s" % (pieces, product))
        db.execute("INSERT INTO sale (product, pieces) SELECT id, %s FROM product WHERE name = %s", (pieces, product))
        db.execute("SELECT stock FROM product WHERE name = %s", (product,))
        return db.fetchone()["stock"]
