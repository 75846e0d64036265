"""The manifests: valid, restricted, without a secret; what they name exists and fits together."""

from __future__ import annotations

import copy
import subprocess

import pytest

from tests.docker.kuberay import SCHEMAS
from tests.docker.reading import KUBERNETES, driver_bytes, pins, program, yaml_documents
from tests.docker.reading import ROOT as REPOSITORY

FILES = sorted(file for file in KUBERNETES.glob("*.yaml") if file.name != "kustomization.yaml")
KUSTOMIZATION = KUBERNETES / "kustomization.yaml"
NOT_APPLIED = {"secret.template.yaml", "rayjob-expand.yaml", "rayjob-train.yaml"}


def documents():
    return [document for file in FILES for document in yaml_documents(file)]


def of_kind(*kinds):
    return [document for document in documents() if document["kind"] in kinds]


def groups(cluster):
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def clusters():
    jobs = [job["spec"]["rayClusterSpec"] for job in of_kind("RayJob") if "rayClusterSpec" in job["spec"]]
    return [cluster["spec"] for cluster in of_kind("RayCluster")] + jobs


def pods():
    """Every pod template as (where, template)."""
    found = [(document["metadata"]["name"], document["spec"]["template"]) for document in of_kind("Deployment")]
    for number, cluster in enumerate(clusters()):
        found += [
            (f"cluster {number} {group.get('groupName', 'head')}", group["template"]) for group in groups(cluster)
        ]
    return found + [(job["spec"]["entrypoint"], job["spec"]["submitterPodTemplate"]) for job in of_kind("RayJob")]


def test_core_resources_are_valid_for_kubernetes():
    validate = pytest.importorskip("kubernetes_validate").validate
    core = [document for document in documents() if document["kind"] not in SCHEMAS]
    assert {document["kind"] for document in core} == {"ConfigMap", "Deployment", "Namespace", "Secret"}
    for document in core:
        validate(document, "1.37", strict=True)


def test_pods_inside_of_ray_resources_are_valid_for_kubernetes():
    validate = pytest.importorskip("kubernetes_validate").validate
    assert len(pods()) == 8
    for where, template in pods():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **template.get("metadata", {})}}
        validate(pod | {"spec": template["spec"]}, "1.37", strict=True)
        assert where


def test_ray_resources_have_only_fields_that_kuberay_knows():
    jsonschema = pytest.importorskip("jsonschema")
    checked = of_kind("RayCluster", "RayJob")
    assert {document["kind"] for document in checked} == {"RayCluster", "RayJob"}
    for document in checked:
        jsonschema.validate(document, SCHEMAS[document["kind"]])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(rayversion="2.60.0"),
        lambda spec: spec["authOptions"].update(mode="none"),
        lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda spec: spec["workerGroupSpecs"][0].pop("groupName"),
    ],
)
def test_a_slip_of_the_pen_is_an_error(spoil):
    jsonschema = pytest.importorskip("jsonschema")
    cluster = copy.deepcopy(of_kind("RayCluster")[0])
    spoil(cluster["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster, SCHEMAS["RayCluster"])


def test_every_pod_is_restricted():
    for where, template in pods():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, where
        assert spec["securityContext"]["runAsNonRoot"] is True, where
        assert spec["securityContext"]["runAsUser"] == 1000, where
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, where
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}, where


def test_what_is_mounted_is_there_and_scratch_can_be_written():
    for where, template in pods():
        spec = template["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for container in spec["containers"]:
            places = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
            assert "emptyDir" in places["/tmp"], where
            if container["name"] != "submitter":
                assert places["/dev/shm"]["emptyDir"]["medium"] == "Memory", where
                assert "emptyDir" in places["/home/gex"], where
                assert {"livenessProbe", "readinessProbe"} <= container.keys(), where


def test_ray_is_the_version_of_the_image_and_asks_for_the_token():
    version = pins(REPOSITORY / "constraints.txt")["ray"]
    assert len(clusters()) == 2
    for cluster in clusters():
        assert cluster["rayVersion"] == version
        assert cluster["authOptions"] == {"mode": "token", "secretName": "gex-ray-token"}
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_a_new_image_reaches_the_ray_pods_too():
    # KubeRay leaves pods as they are otherwise, and the Prefect worker would drive an older Ray; a RayJob may not.
    (cluster,) = of_kind("RayCluster")
    assert cluster["spec"]["upgradeStrategy"] == {"type": "Recreate"}
    assert all("upgradeStrategy" not in job["spec"].get("rayClusterSpec", {}) for job in of_kind("RayJob"))


@pytest.mark.parametrize("where", ["prefect-worker", "cluster 0 head", "cluster 1 head"])
def test_what_holds_a_driver_has_memory_for_its_database(where):
    (container,) = dict(pods())[where]["spec"]["containers"]
    (config,) = [document["data"] for document in of_kind("ConfigMap")]
    memory = container["resources"]["limits"]["memory"]
    assert int(memory.removesuffix("Gi")) * 2**30 >= driver_bytes(config)


def test_no_job_has_a_deadline_that_a_long_one_meets():
    """An expansion was broken off after three days, and 700 core-hours on eight cores are nearly four."""
    assert {field for job in of_kind("RayJob") for field in job["spec"] if "eadline" in field} == set()


def test_gpus_that_ray_is_told_of_are_those_the_pod_has():
    for cluster in clusters():
        for group in groups(cluster):
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            assert group["rayStartParams"].get("num-gpus", "0") == limits.get("nvidia.com/gpu", "0")


def test_the_training_has_a_worker_with_the_cpus_and_the_gpu_of_each_process():
    from trainer.train_recipe import load_train_recipe

    launch = load_train_recipe(KUBERNETES / "recipes" / "train.toml").launch
    job = next(job["spec"] for job in of_kind("RayJob") if job["spec"]["entrypoint"].startswith("gex train"))
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert group["replicas"] == launch.num_processes
    assert float(limits["nvidia.com/gpu"]) == launch.gpus_a_process
    assert float(limits["cpu"]) >= launch.cpus_a_process


def test_secrets_are_templates_without_values():
    assert [secret["metadata"]["name"] for secret in of_kind("Secret")] == ["gex-secrets", "gex-ray-token"]
    for secret in of_kind("Secret"):
        assert set(secret["stringData"].values()) == {""}
        assert "data" not in secret


def test_what_pods_name_is_defined():
    (settings,) = yaml_documents(KUSTOMIZATION)
    maps = {document["metadata"]["name"] for document in of_kind("ConfigMap")}
    maps |= {generated["name"] for generated in settings["configMapGenerator"]}
    secrets = {secret["metadata"]["name"]: set(secret["stringData"]) for secret in of_kind("Secret")}
    for where, template in pods():
        for volume in template["spec"]["volumes"]:
            assert "configMap" not in volume or volume["configMap"]["name"] in maps, where
        for container in template["spec"]["containers"]:
            for source in container.get("envFrom", []):
                name = next(iter(source.values()))["name"]
                assert name in (maps if "configMapRef" in source else secrets), where
            for variable in container.get("env", []):
                key = variable.get("valueFrom", {}).get("secretKeyRef")
                assert key is None or key["key"] in secrets[key["name"]], where


def test_every_file_is_applied_or_named_as_not_applied():
    (settings,) = yaml_documents(KUSTOMIZATION)
    assert set(settings["resources"]) | NOT_APPLIED == {file.name for file in FILES}
    assert settings["generatorOptions"] == {"disableNameSuffixHash": True}
    for generated in settings["configMapGenerator"]:
        assert all((KUBERNETES / entry.partition("=")[2]).is_file() for entry in generated["files"])


def test_kustomize_builds_it_with_the_recipes_and_one_image_tag():
    done = subprocess.run(
        [program("kubectl"), "kustomize", KUBERNETES], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("image: gex-pipeline:0.1.0\n") == 3
    assert "image: gex-pipeline\n" not in done.stdout
    assert "entrypoint" not in done.stdout  # jobs are not part of what stands
    assert 'output = "s3://gex/expansion"' in done.stdout
