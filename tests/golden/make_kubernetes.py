"""Makes kubernetes.json: JSON schemas of what deploy/kuberay.yaml holds, strict, trimmed, without descriptions.

Of Kubernetes' own kinds from the models of its Python client, which are generated from its OpenAPI document; of RayCluster
by hand from KubeRay's CRD (helm-chart/kuberay-operator/crds/ray.io_rayclusters.yaml at commit 017710c025a8), whose pods are
Kubernetes'. Both are under the Apache License 2.0, as this is. A property that is left out here is refused by the test: take
it from the list below and make the file again, in an environment of its own:

    pip install kubernetes==34.1.0 && python tests/golden/make_kubernetes.py
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from kubernetes.client import models

NOT_NEEDED = {
    "V1Volume": "awsElasticBlockStore azureDisk azureFile cephfs cinder downwardAPI fc flexVolume flocker gcePersistentDisk "
    "gitRepo glusterfs image iscsi photonPersistentDisk portworxVolume projected quobyte rbd scaleIO storageos "
    "vsphereVolume",
    "V1PodSpec": "ephemeralContainers resourceClaims dnsConfig overhead readinessGates schedulingGates",
    "V1Container": "lifecycle volumeDevices resizePolicy",
    "V1ObjectMeta": "managedFields ownerReferences",
    "V1Job": "status",
    "V1Service": "status",
}
SIMPLE = {"int": "integer", "str": "string", "bool": "boolean", "float": "number", "datetime": "string"}
NUMBER = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
QUANTITY = {
    "anyOf": [
        {"type": "integer"},
        {"type": "string", "pattern": rf"^(\+|-)?{NUMBER}(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?{NUMBER}))?$"},
    ]
}
definitions: dict[str, Any] = {}


def of_type(name: str, owner: str = "", attribute: str = "") -> dict[str, Any]:
    if owner == "V1ResourceRequirements" and attribute in ("limits", "requests"):
        return {"type": "object", "additionalProperties": QUANTITY}
    if name in SIMPLE:
        return {"type": SIMPLE[name]}
    if name == "object":  # of what is reached here, each is a port or a share: a number or a name
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if found := re.fullmatch(r"list\[(.*)\]", name):
        return {"type": "array", "items": of_type(found[1])}
    if found := re.fullmatch(r"dict\(str, (.*)\)", name):
        return {"type": "object", "additionalProperties": of_type(found[1])}
    define(name)
    return ref(name)


def define(name: str) -> None:
    if name.removeprefix("V1") in definitions:
        return
    made: dict[str, Any] = {"type": "object"}
    definitions[name.removeprefix("V1")] = made
    model = getattr(models, name)
    source = inspect.getsource(model)
    properties, required = {}, []
    for attribute, type_ in model.openapi_types.items():
        key = model.attribute_map[attribute]
        if key in NOT_NEEDED.get(name, "").split():
            continue
        properties[key] = of_type(type_, name, attribute)
        if f"client_side_validation and {attribute} is None" in source:
            required.append(key)
    made |= {"properties": properties, "additionalProperties": False} | ({"required": required} if required else {})


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name.removeprefix('V1')}"}


def record(*required: str, **properties: Any) -> dict[str, Any]:
    made = {"type": "object", "properties": properties, "additionalProperties": False}
    return made | ({"required": list(required)} if required else {})


def many(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


for kind in ("V1Job", "V1NetworkPolicy", "V1Service"):
    define(kind)

text, whole, flag = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
texts = {"type": "object", "additionalProperties": text}
metadata = record(annotations=texts, finalizers=many(text), labels=texts, name=text, namespace=text)
credential = record(value=text, valueFrom=ref("EnvVarSource"))
pod = record(metadata=metadata, spec=ref("PodSpec"))
autoscaler = record(
    env=many(ref("EnvVar")),
    envFrom=many(ref("EnvFromSource")),
    idleTimeoutSeconds=whole,
    image=text,
    imagePullPolicy=text,
    resources=ref("ResourceRequirements"),
    securityContext=ref("SecurityContext"),
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    volumeMounts=many(ref("VolumeMount")),
)
head = record(
    "template",
    enableIngress=flag,
    headService=ref("Service"),
    labels=texts,
    rayStartParams=texts,
    resources=texts,
    serviceType=text,
    template=pod,
)
worker = record(
    *("groupName", "maxReplicas", "minReplicas", "template"),
    groupName=text,
    idleTimeoutSeconds=whole,
    labels=texts,
    maxReplicas=whole,
    minReplicas=whole,
    numOfHosts=whole,
    rayStartParams=texts,
    replicas=whole,
    resources=texts,
    scaleStrategy=record(workersToDelete=many(text)),
    suspend=flag,
    template=pod,
)
cluster = record(
    "headGroupSpec",
    authOptions=record(enableK8sTokenAuth=flag, mode={"enum": ["disabled", "token"]}),
    autoscalerOptions=autoscaler,
    enableInTreeAutoscaling=flag,
    gcsFaultToleranceOptions=record(
        "redisAddress",
        externalStorageNamespace=text,
        redisAddress=text,
        redisPassword=credential,
        redisUsername=credential,
    ),
    headGroupSpec=head,
    headServiceAnnotations=texts,
    managedBy={"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]},
    rayVersion=text,
    suspend=flag,
    ttlSecondsAfterIdle={"type": "integer", "minimum": 0},
    upgradeStrategy=record(type={"enum": ["Recreate", "None"]}),
    workerGroupSpecs=many(worker),
)
definitions["RayCluster"] = record(
    *("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=ref("ObjectMeta"),
    spec=cluster,
)

comment = (
    "Made by make_kubernetes.py, which says from what: Kubernetes 1.34 and KubeRay's CRD of RayCluster, both under the "
    "Apache License 2.0; trimmed."
)
lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(made)}" for name, made in sorted(definitions.items()))
target = Path(__file__).with_name("kubernetes.json")
target.write_text(f'{{"$comment": {json.dumps(comment)},\n"$defs": {{\n{lines}\n}}}}\n')
print(f"{target}: {len(definitions)} definitions")
