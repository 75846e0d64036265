"""A Ray cluster of two nodes on this machine, in a process of its own, so that a test can kill the second node.

Prints one line of JSON: the address for a recipe's `[ray]`, and the process ids of the two raylets, the head's first.
The head has one CPU, which a driver's raylet on the head leaves to its tasks; the second node has two. Ends, with all
its processes, when its standard input does.
"""

from __future__ import annotations

import json
import sys

_STORE_BYTES = 80_000_000


def main() -> None:
    """Start both nodes, say where they are, wait."""
    from ray._private.ray_constants import PROCESS_TYPE_RAYLET
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": _STORE_BYTES})
    nodes = [cluster.head_node, cluster.add_node(num_cpus=2, object_store_memory=_STORE_BYTES)]
    raylets = [node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
