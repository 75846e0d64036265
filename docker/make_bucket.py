#!/usr/bin/env python3
"""Makes a bucket unless it is there: ``make-bucket gex``. Waits for the store to come up.

The store and the credentials are those of the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
"""

from __future__ import annotations

import os
import sys
import time

_PATIENCE_S = 60.0
_PAUSE_S = 1.0


def make_bucket(name: str) -> None:
    """Make it, or find it.

    Raises:
        OSError: the store did not do it in time; the last answer.
    """
    from pyarrow import fs

    store = fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True)
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if store.get_file_info(name).type == fs.FileType.NotFound:
                store.create_dir(name)
            return
        except OSError:
            if time.monotonic() > end_s:
                raise
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    try:
        make_bucket(sys.argv[1])
    except OSError as error:
        sys.exit(f"bucket {sys.argv[1]} could not be made in {_PATIENCE_S:g} s: {error}")
    sys.stdout.write(f"bucket {sys.argv[1]} is there\n")
