"""Every store leads one whole life, without a single error: stores.py HOST:PORT [HOST:PORT ...]

Several addresses are members of one Plenary cluster; one address may be a Redis, which judges the lives themselves.
"""

import sys
import time

import http_stores
import queues
import replays

STORES = http_stores.STORES + queues.STORES + replays.STORES
STORES_OF_PLENARY = http_stores.STORES_OF_PLENARY + replays.STORES_OF_PLENARY


def main(addresses):
    stores = STORES + (STORES_OF_PLENARY if len(addresses) > 1 else ())
    for kind in stores:
        began = time.monotonic()
        # Two copies of an application also where there is one server.
        store = kind(addresses if len(addresses) > 1 else addresses * 2)
        try:
            store.life()
            store.verify()
        finally:
            store.close()
        print(f"{store.name}: ok ({time.monotonic() - began:.1f} s)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
