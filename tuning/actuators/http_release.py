"""The version that serves, on any server that can be told over HTTP, as services.yaml writes the requests.

Where the version stands in the answer of the read request is a JSON pointer; where it stands in the write request is
`{version}` in its path or body. Options: tuning.actuators.settings.HttpReleaseOptions.
"""

from __future__ import annotations

from detection.model import Service
from detection.outside_text import printable
from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _options as options
from tuning.actuators import _request_template as templates
from tuning.actuators._http import Http
from tuning.actuators._release_endpoints import ReleaseEndpoints
from tuning.actuators._swap import Knobs
from tuning.actuators.settings import HttpReleaseOptions
from tuning.errors import ControlRefused

VERSION_LETTERS = 120


class HttpRelease(ReleaseEndpoints):
    """The release lever of a server that nobody wrote an actuator for."""

    name = "http_release"
    options = HttpReleaseOptions

    def read_one(self, service: Service, http: Http) -> Knobs:
        read = options.of(service, self.lever, HttpReleaseOptions).read
        at = f"{read.method} {http.shown}{read.path}"
        document = http.call(read.method, read.path, read.body, reading=True, headers=read.headers)
        try:
            found = pointers.find(document, pointers.steps(read.version_at))
        except pointers.NoSuchPlace as error:
            raise ControlRefused(f"{at}: in the answer {error}") from error
        whole = isinstance(found, int) and not isinstance(found, bool)
        version = printable(str(found), VERSION_LETTERS + 1) if whole or isinstance(found, str) else ""
        if not version or len(version) > VERSION_LETTERS:
            words = options.bounded(repr(found), 60)
            raise ControlRefused(f"{at} shows no usable version at {read.version_at or 'its top'} ({words})")
        return {"version": version}

    def send(self, service: Service, http: Http, version: str) -> None:
        given = options.of(service, self.lever, HttpReleaseOptions)
        write, values = given.write, {"version": version}
        body = None if write.body is None else templates.body(write.body, values)
        path = templates.path(write.path, values)
        http.call(write.method, path, body, headers=write.headers, timeout_s=given.load_timeout_s)
