"""Kubernetes Status bodies, word for word as kube-apiserver 1.36 answers them."""

from __future__ import annotations

from typing import Any

from demo.kubernetes_api.resources import Resource


class ApiError(Exception):
    """An answer that is not a success. `body` is what is sent."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
        }
        if details is not None:
            body["details"] = details
        body["code"] = code
        self.body = body


def _details(resource: Resource, name: str, kind: str | None = None, **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    return {**details, "kind": kind or resource.plural, **more}


def modified(resource: Resource, name: str) -> ApiError:
    message = (
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    return ApiError(409, "Conflict", message, _details(resource, name))


def exists(resource: Resource, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _details(resource, name))


def field_conflict(conflicts: list[tuple[str, str, str]]) -> ApiError:
    """conflicts: (manager, apiVersion, field path such as ".spec.minReplicas")."""
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}" using {version}', "field": path}
        for manager, version, path in conflicts
    ]
    if len(conflicts) == 1:
        manager, version, path = conflicts[0]
        message = f'Apply failed with 1 conflict: conflict with "{manager}" using {version}: {path}'
    else:
        by_manager: dict[tuple[str, str], list[str]] = {}
        for manager, version, path in conflicts:
            by_manager.setdefault((manager, version), []).append(path)
        parts = [
            f'conflicts with "{manager}" using {version}:\n' + "\n".join(f"- {path}" for path in paths)
            for (manager, version), paths in by_manager.items()
        ]
        message = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(parts)
    return ApiError(409, "Conflict", message, {"causes": causes})


Cause = tuple[str, str, str]
"""(reason, field, message), for instance ("FieldValueInvalid", "spec.minReplicas", "Invalid value: -1: ...")."""


def invalid(resource: Resource, name: str, causes: list[Cause], *, kind: str | None = None) -> ApiError:
    kind = kind or resource.kind
    of = f"{kind}.{resource.group}" if resource.group else kind
    said = [f"{field}: {message}" for _, field, message in causes]
    text = said[0] if len(said) == 1 else "[" + ", ".join(said) + "]"
    listed = [{"reason": reason, "message": message, "field": field} for reason, field, message in causes]
    return ApiError(422, "Invalid", f'{of} "{name}" is invalid: {text}', _details(resource, name, kind, causes=listed))


def bad_patch(patch: Any, problem: str) -> ApiError:
    """A patch whose values do not fit the schema: the server forgets which object it was about."""
    message = f'Invalid value: "{go_format(patch)}": {problem}'
    causes = [{"reason": "FieldValueInvalid", "message": message, "field": "patch"}]
    return ApiError(422, "Invalid", f' "" is invalid: patch: {message}', {"causes": causes})


def json_patch_test_failed() -> ApiError:
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})


def policy_denied(resource: Resource, name: str, policy: str, words: str) -> ApiError:
    message = f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {words}"
    return ApiError(
        422,
        "Invalid",
        f'{resource.qualified} "{name}" is forbidden: {message}',
        _details(resource, name, causes=[{"message": message}]),
    )


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name))


def not_served() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def forbidden(resource: Resource, name: str, verb: str, user: str, namespace: str | None, sub: str = "") -> ApiError:
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    what = f"{resource.plural}/{sub}" if sub else resource.plural
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    message = (
        f'{subject} is forbidden: User "{user}" cannot {verb} resource "{what}" in API group "{resource.group}" {where}'
    )
    return ApiError(403, "Forbidden", message, _details(resource, name))


def not_admitted(resource: Resource, name: str, words: str) -> ApiError:
    """A refusal of an admission plugin: 403 like the authoriser's, and of another kind."""
    message = f'{resource.qualified} "{name}" is forbidden: {words}'
    return ApiError(403, "Forbidden", message, _details(resource, name))


def terminating(resource: Resource, name: str, namespace: str) -> ApiError:
    words = f"namespace {namespace} is being terminated"
    message = (
        f'{resource.qualified} "{name}" is forbidden: unable to create new content in namespace {namespace} '
        "because it is being terminated"
    )
    causes = [{"reason": "NamespaceTerminating", "message": words, "field": "metadata.namespace"}]
    return ApiError(403, "Forbidden", message, _details(resource, name, causes=causes))


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unsupported_media_type(given: str) -> ApiError:
    message = (
        f"the body of the request was in an unknown format - accepted media types include: "
        f"application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml (not {given})"
    )
    return ApiError(415, "UnsupportedMediaType", message, {})


def too_many_requests() -> ApiError:
    message = "the server has received too many requests and has asked us to try again later"
    return ApiError(429, "TooManyRequests", message, {"retryAfterSeconds": 1})


def over_budget(budget: str, needs: int, has: int) -> ApiError:
    """An eviction that a PodDisruptionBudget does not allow now."""
    cause = {
        "reason": "DisruptionBudget",
        "message": f"The disruption budget {budget} needs {needs} healthy pods and has {has} currently",
    }
    return ApiError(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        {"causes": [cause]},
    )


def request_timeout() -> ApiError:
    message = "Timeout: request did not complete within requested timeout - context deadline exceeded"
    return ApiError(504, "Timeout", message, {})


def read_timeout() -> ApiError:
    """What a GET gets from a server whose etcd is frozen: a body without kind and apiVersion."""
    error = ApiError(504, "Timeout", "Timeout: request did not complete within the allotted timeout", {})
    error.body = {key: value for key, value in error.body.items() if key not in ("kind", "apiVersion")}
    return error


def expired(asked: int, oldest: int) -> ApiError:
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")


def internal(words: str = "Internal error occurred: failed calling webhook") -> ApiError:
    return ApiError(500, "InternalError", words, {})


def unavailable() -> ApiError:
    return ApiError(503, "ServiceUnavailable", "apiserver is shutting down", {})


BY_CODE = {
    401: unauthorized,
    429: too_many_requests,
    500: internal,
    503: unavailable,
    504: request_timeout,
}
"""Answers of a server in trouble, for fault injection."""


def go_format(value: Any) -> str:
    """A value as Go's %+v prints it: map[spec:map[minReplicas:5]]."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_format(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(go_format, value)) + "]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
