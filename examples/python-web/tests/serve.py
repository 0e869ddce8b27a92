"""Starts the image's own command and asks it over HTTP, as a load balancer would."""
import json
import os
import subprocess
import time
import urllib.request

server = subprocess.Popen(["python3", "-m", "flask", "--app", "shop", "run", "--port=8000"])
try:
    for _ in range(100):
        try:
            with urllib.request.urlopen("http://127.0.0.1:8000/healthz", timeout=5) as answer:
                health = json.load(answer)
            break
        except OSError:
            time.sleep(0.1)
    else:
        raise SystemExit("no answer after 10 s")
finally:
    server.terminate()
    server.wait(10)

assert health == {"ok": True, "shop": os.environ["SHOP_NAME"]}, health
print("serves as", health["shop"])
