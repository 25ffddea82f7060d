"""From an HTTP request to an answer: authentication, authorisation, addressing, the verbs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from demo.kubernetes_api import admission, evictions, patches, status, validation
from demo.kubernetes_api.rbac import ANONYMOUS, Rbac
from demo.kubernetes_api.resources import ACCESS_REVIEW, NAMESPACE, SERVED, Address, Resource, parse
from demo.kubernetes_api.status import ApiError
from demo.kubernetes_api.store import Object, Store

VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, method: str, target: str, headers: dict[str, str], body: bytes) -> Request:
        parts = urlsplit(target)
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return cls(method, parts.path, query, {k.lower(): v for k, v in headers.items()}, body)

    @property
    def manager(self) -> str:
        agent = self.headers.get("user-agent", "unknown").split("/")[0]
        return self.query.get("fieldManager") or agent

    @property
    def dry(self) -> bool:
        return self.query.get("dryRun") == "All"


@dataclass
class Answer:
    code: int
    body: Any
    headers: dict[str, str]
    stream: Iterator[Any] | None = None


class Api:
    """The verbs over a store. `served` may grow by custom resources."""

    def __init__(self, store: Store, rbac: Rbac) -> None:
        self.store = store
        self.rbac = rbac
        self.served: tuple[Resource, ...] = SERVED

    def answer(self, request: Request) -> Answer:
        try:
            return self._answer(request)
        except ApiError as error:
            return Answer(error.code, error.body, {})

    def forbid(self, request: Request) -> Answer:
        """What the authoriser answers to somebody without the right to this request."""
        at = parse(request.path, self.served)
        try:
            user = self.rbac.user(request.headers.get("authorization"))
            if at is None:
                raise status.not_served()
            raise status.forbidden(at.resource, at.name, self._verb(request, at), user, at.namespace, at.sub)
        except ApiError as error:
            return Answer(error.code, error.body, {})

    def _answer(self, request: Request) -> Answer:
        user = self.rbac.user(request.headers.get("authorization"))
        if request.path in ("/version", "/healthz", "/livez", "/readyz"):
            return Answer(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.2"}, {})
        at = parse(request.path, self.served)
        if at is None:
            raise status.not_served()
        verb = self._verb(request, at)
        name = at.name or self._named_by_selector(request)
        full = f"{at.resource.plural}/{at.sub}" if at.sub else at.resource.plural
        if not self.rbac.may(user, verb, at.resource.group, full, at.namespace, name):
            raise status.forbidden(at.resource, at.name, verb, user, at.namespace, at.sub)
        if at.resource == ACCESS_REVIEW:
            return Answer(201, self._review(request, user), {})
        if verb == "watch":
            return Answer(200, None, {}, self._watch(request, at))
        if verb == "list":
            return Answer(200, self._list(request, at), {})
        return self._one(request, at)

    @staticmethod
    def _verb(request: Request, at: Address) -> str:
        if request.method == "GET" and not at.name:
            return "watch" if request.query.get("watch") in ("true", "True", "1") else "list"
        evicts = at.sub == "eviction"
        if request.method not in VERBS or ((request.method == "POST") == bool(at.name)) != evicts:
            raise ApiError(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {}
            )
        return VERBS[request.method]

    @staticmethod
    def _named_by_selector(request: Request) -> str:
        selector = request.query.get("fieldSelector", "")
        return selector.removeprefix("metadata.name=") if selector.startswith("metadata.name=") else ""

    def _one(self, request: Request, at: Address) -> Answer:
        space = at.namespace or ""
        if request.method == "GET":
            obj = self.store.get(at.resource, space, at.name)
            if at.sub == "log":
                return Answer(200, self.store.logs.get((space, at.name), ""), {"Content-Type": "text/plain"})
            return Answer(200, self._scale_view(at, obj) if at.sub == "scale" else obj, {})
        if request.method == "DELETE":
            self.store.delete(at.resource, space, at.name)
            return Answer(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, {})
        body = self._decode(request)
        if at.sub == "eviction":
            evictions.evict(self.store, space, at.name, body, dry=request.dry)
            return Answer(
                201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, {}
            )
        if at.sub == "scale":
            return Answer(200, self._write_scale(request, at, body), {})
        if request.method == "POST":
            warnings = self._strict(request, at.resource, body) | self._pod_warning(at, body)
            made = self.store.create(
                at.resource, space, validation.drop_unknown(at.resource, body), request.manager, dry=request.dry
            )
            return Answer(201, made, warnings)
        kind = request.headers.get("content-type", "").split(";")[0].strip()
        if kind == "application/apply-patch+yaml" and request.method == "PATCH":
            if "fieldManager" not in request.query:
                raise status.bad_request(
                    'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
                )
            validation.check_applied(at.resource, at.name, body)
            fresh = self.store.find(at.resource, space, at.name) is None
            force = request.query.get("force") in ("true", "True")
            done = self.store.apply(at.resource, space, at.name, body, request.manager, force=force, dry=request.dry)
            return Answer(201 if fresh else 200, done, {})
        warnings = self._strict(request, at.resource, body)
        change = self._change(request, kind, body)

        def cleaned(obj: Object) -> Object:
            return validation.drop_unknown(at.resource, change(obj))

        done = self.store.update(
            at.resource, space, at.name, cleaned, request.manager, sub=at.sub, dry=request.dry, patch=body
        )
        return Answer(200, done, warnings)

    @staticmethod
    def _change(request: Request, kind: str, body: Any) -> Any:
        if request.method == "PUT":
            return lambda _: body
        if kind == "application/json-patch+json":
            return lambda obj: patches.json_patch(obj, body)
        if kind == "application/merge-patch+json":
            return lambda obj: patches.merge_patch(obj, body)
        if kind == "application/strategic-merge-patch+json":
            return lambda obj: patches.strategic_patch(obj, body)
        raise status.unsupported_media_type(kind)

    def _pod_warning(self, at: Address, body: Any) -> dict[str, str]:
        """PodSecurity lets a workload through whose pods it will refuse, and warns."""
        template = (body.get("spec") or {}).get("template") if at.resource.scalable and isinstance(body, dict) else None
        space = self.store.find(NAMESPACE, "", at.namespace or "")
        if not isinstance(template, dict) or space is None:
            return {}
        words = admission.pod_warning(space["metadata"].get("labels", {}), template.get("spec") or {})
        return {"Warning": f"299 - {json.dumps(words)}"} if words else {}

    @staticmethod
    def _strict(request: Request, resource: Resource, body: Any) -> dict[str, str]:
        unknown = validation.unknown_fields(resource, body) if isinstance(body, dict) else []
        if not unknown or request.query.get("fieldValidation") == "Ignore":
            return {}
        said = ", ".join(f'unknown field "{field}"' for field in unknown)
        if request.query.get("fieldValidation") == "Strict":
            raise status.bad_patch(body, f"strict decoding error: {said}")
        return {"Warning": ", ".join(f'299 - "unknown field \\"{field}\\""' for field in unknown)}

    @staticmethod
    def _decode(request: Request) -> Any:
        try:
            if "yaml" in request.headers.get("content-type", ""):
                return yaml.safe_load(request.body)
            return json.loads(request.body)
        except (ValueError, yaml.YAMLError) as error:
            raise status.bad_request(f"error decoding patch: {error}") from error

    def _scale_view(self, at: Address, obj: Object) -> Object:
        meta = obj["metadata"]
        if "replicas" not in obj["spec"]:
            raise status.internal('Internal error occurred: the spec replicas field ".spec.replicas" does not exist')
        labels = obj["spec"].get("selector", {}).get("matchLabels") or {"app": meta["name"]}
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {k: meta[k] for k in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")},
            "spec": {"replicas": obj["spec"]["replicas"]} if obj["spec"].get("replicas") else {},  # zero is left out
            "status": {
                "replicas": obj.get("status", {}).get("replicas", 0),
                "selector": ",".join(f"{k}={v}" for k, v in labels.items()),
            },
        }

    def _write_scale(self, request: Request, at: Address, body: Any) -> Object:
        def change(obj: Object) -> Object:
            view = self._scale_view(at, obj)
            kind = request.headers.get("content-type", "").split(";")[0].strip()
            wanted = self._change(request, kind, body)(view)
            replicas = wanted.get("spec", {}).get("replicas", 0)
            if not isinstance(replicas, int) or isinstance(replicas, bool):
                raise status.bad_patch(body, "unrecognized type: int32")
            validation.check_scale(at.resource, at.name, replicas)
            version = wanted.get("metadata", {}).get("resourceVersion")
            if version not in (None, "", obj["metadata"]["resourceVersion"]):
                raise status.modified(at.resource, at.name)
            obj["spec"]["replicas"] = replicas
            return obj

        done = self.store.update(
            at.resource, at.namespace or "", at.name, change, request.manager, sub="scale", dry=request.dry
        )
        return self._scale_view(at, done)

    def _list(self, request: Request, at: Address) -> Object:
        labels = dict(
            part.replace("==", "=").split("=", 1)
            for part in request.query.get("labelSelector", "").split(",")
            if "=" in part
        )
        items = self.store.list(at.resource, at.namespace, labels)
        name = self._named_by_selector(request)
        return {
            "kind": f"{at.resource.kind}List",
            "apiVersion": at.resource.api_version,
            "metadata": {"resourceVersion": str(self.store.version)},
            "items": [item for item in items if not name or item["metadata"]["name"] == name],
        }

    def _review(self, request: Request, user: str) -> Object:
        review = self._decode(request)
        asked = review.get("spec", {}).get("resourceAttributes", {})
        resource = asked.get("resource", "")
        if asked.get("subresource"):
            resource += "/" + asked["subresource"]
        allowed = self.rbac.may(
            user, asked.get("verb", ""), asked.get("group", ""), resource, asked.get("namespace"), asked.get("name", "")
        )
        known = user != ANONYMOUS or not self.rbac.tokens
        return {**review, "metadata": {}, "status": {"allowed": allowed and known}}

    def _watch(self, request: Request, at: Address) -> Iterator[Any]:
        since = int(request.query.get("resourceVersion") or 0)
        until = time.monotonic() + min(300.0, float(request.query.get("timeoutSeconds") or 300))
        if 0 < since < self.store.oldest_watchable:
            error = status.expired(since, self.store.oldest_watchable)
            yield {"type": "ERROR", "object": error.body}
            return
        if not since:
            for item in self.store.list(at.resource, at.namespace):
                yield {"type": "ADDED", "object": item}
            since = self.store.version
        while time.monotonic() < until:
            with self.store.changed:
                fresh = [e for e in self.store.events if e[0] > since or (e[0] == since and e[1] == "DELETED")]
                if not fresh:
                    self.store.changed.wait(0.2)
                    continue
            since = fresh[-1][0]
            for _, kind, resource, obj in fresh:
                if resource == at.resource and at.namespace in (None, obj["metadata"].get("namespace")):
                    yield {"type": kind, "object": obj}
