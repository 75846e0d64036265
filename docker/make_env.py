#!/usr/bin/env python3
"""Writes new secrets for compose.yaml: ``python3 docker/make_env.py`` makes ``docker/.env``, readable by its owner.

A file that is there stays as it is: the database was set up with the password in it.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

FILE = Path(__file__).with_name(".env")
NAMES = ("POSTGRES_PASSWORD", "PREFECT_PASSWORD", "RAY_AUTH_TOKEN", "S3_ACCESS_KEY", "S3_SECRET_KEY")


def make_env(file: Path) -> bool:
    """Write the file unless it is there; whether it was written."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.writelines(f"{name}={secrets.token_hex(32)}\n" for name in NAMES)
    return True


if __name__ == "__main__":
    sys.stdout.write(f"{FILE} {'written' if make_env(FILE) else 'is there already, and stays'}\n")
