"""How many came by, counted in the cache of CACHE_URL. Without one, nobody counts."""
import os

import redis


def count():
    url = os.environ.get("CACHE_URL")
    return redis.Redis.from_url(url, socket_timeout=5).incr("visitors") if url else None
