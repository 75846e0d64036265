"""The fields of KubeRay's RayCluster and RayJob (ray.io/v1, KubeRay 1.7) that our manifests use, as a JSON schema.

Strict: a field that is not here is an error, so that a slip of the pen is one too. To use another field of the custom
resource, add it. Pods inside are left to the schema of Kubernetes.
"""

from __future__ import annotations

from typing import Any

_PARAMS = {"type": "object", "additionalProperties": {"type": "string"}}  # numbers too are strings in rayStartParams
_COUNT = {"type": "integer", "minimum": 0}
_TEMPLATE = {"type": "object", "required": ["spec"]}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


_METADATA = {
    **_object([], name={"type": "string"}, generateName={"type": "string"}, namespace={"const": "gex"}),
    "oneOf": [{"required": ["name"]}, {"required": ["generateName"]}],
}
_METADATA["properties"]["labels"] = {"type": "object", "additionalProperties": {"type": "string"}}

_CLUSTER = _object(
    ["rayVersion", "headGroupSpec", "workerGroupSpecs", "authOptions"],
    rayVersion={"type": "string"},
    authOptions=_object(["mode", "secretName"], mode={"enum": ["disabled", "token"]}, secretName={"type": "string"}),
    upgradeStrategy=_object(["type"], type={"enum": ["None", "Recreate"]}),
    headGroupSpec=_object(["rayStartParams", "template"], rayStartParams=_PARAMS, template=_TEMPLATE),
    workerGroupSpecs={
        "type": "array",
        "items": _object(
            ["groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"],
            groupName={"type": "string"},
            replicas=_COUNT,
            minReplicas=_COUNT,
            maxReplicas=_COUNT,
            rayStartParams=_PARAMS,
            template=_TEMPLATE,
        ),
    },
)

_JOB = {
    **_object(
        ["entrypoint", "submitterPodTemplate"],
        entrypoint={"type": "string"},
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        backoffLimit=_COUNT,
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=_COUNT,
        clusterSelector={"type": "object", "additionalProperties": {"type": "string"}},
        submitterPodTemplate=_TEMPLATE,
        rayClusterSpec=_CLUSTER,
    ),
    "oneOf": [{"required": ["clusterSelector"]}, {"required": ["rayClusterSpec"]}],
}


def _resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _object(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=_METADATA,
        spec=spec,
    )


SCHEMAS = {"RayCluster": _resource("RayCluster", _CLUSTER), "RayJob": _resource("RayJob", _JOB)}
