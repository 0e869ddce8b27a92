"""Asks the running server whether it is well, as a load balancer would."""
import sys
import urllib.request

if __name__ == "__main__":
    try:
        urllib.request.urlopen("http://localhost:8000/healthz", timeout=5).read()
    except OSError as err:
        sys.exit(str(err))
