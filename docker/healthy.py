#!/usr/bin/env python3
"""Whether something answers at an address: ``healthy http://127.0.0.1:4200/api/health``. Ends with 0 or 1.

For health checks in images that have neither curl nor wget.
"""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

_PATIENCE_S = 5.0


def answers(url: str) -> bool:
    """Whether `url` is answered with a 2xx in time."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=_PATIENCE_S)
    try:
        connection.request("GET", place.path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{url}: {error}\n")
        return False
    finally:
        connection.close()
    if not 200 <= status < 300:
        sys.stderr.write(f"{url}: {status}\n")
        return False
    return True


if __name__ == "__main__":
    sys.exit(not answers(sys.argv[1]))
