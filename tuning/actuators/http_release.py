"""The version that serves, on any server that can be told over HTTP, as services.yaml writes the requests.

Where the version stands in the answer of the read request is a JSON pointer; where it stands in the write request is
`{version}` in its path or body. Options: settings.release.HttpReleaseOptions.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _http_choice as choice
from tuning.actuators import _options as options
from tuning.actuators._choice_endpoints import ChoiceEndpoints
from tuning.actuators._http import Http
from tuning.actuators._swap import Knobs
from tuning.actuators.settings.release import HttpReleaseOptions


class HttpRelease(ChoiceEndpoints):
    """The release lever of a server that nobody wrote an actuator for."""

    name, lever, knob = "http_release", "release", "version"
    options = HttpReleaseOptions

    def read_one(self, service: Service, http: Http) -> Knobs:
        read = options.of(service, self.lever, HttpReleaseOptions).read
        at = f"{read.method} {http.shown}{read.path}"
        document = http.call(read.method, read.path, read.body, reading=True, headers=read.headers)
        return {"version": choice.chosen(document, read.version_at, at, "version")}

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        given = options.of(service, self.lever, HttpReleaseOptions)
        choice.write(http, given.write, {"version": str(wanted["version"])}, given.load_timeout_s)
