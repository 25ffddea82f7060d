"""A limit of what is taken in, at a server or a gateway that can be told over HTTP, as services.yaml writes it.

The length of a queue, requests at once, a rate. Where it stands in the answer of the read request is a JSON pointer, in
the write request `{limit}`. Options: settings.admission.HttpAdmissionOptions.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _admission as admission
from tuning.actuators import _options as options
from tuning.actuators import _request_template as templates
from tuning.actuators._http import Http
from tuning.actuators._knob_endpoints import KnobEndpoints
from tuning.actuators._swap import Knobs
from tuning.actuators.settings.admission import HttpAdmissionOptions
from tuning.model import Change, Receipt, Setting


class HttpAdmission(KnobEndpoints):
    """The admission lever over HTTP."""

    name, lever = "http_admission", admission.LEVER
    options = HttpAdmissionOptions

    def read(self, service: Service) -> Setting:
        given = self._chosen(service)
        return admission.usable(super().read(service), admission.KNOBS[given.limits], given.unlimited)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        admission.checked(change, admission.KNOBS[self._chosen(service).limits])
        return super().apply(service, change, key=key)

    def read_one(self, service: Service, http: Http) -> Knobs:
        given = self._chosen(service)
        read = given.read
        document = http.call(read.method, read.path, read.body, reading=True, headers=read.headers)
        where = admission.LimitAt(read.limit_at, admission.KNOBS[given.limits])
        return where.knobs(document, f"{read.method} {http.shown}{read.path}")

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        given = self._chosen(service)
        write, values = given.write, {"limit": wanted[admission.KNOBS[given.limits]]}
        body = None if write.body is None else templates.body(write.body, values)
        http.call(write.method, templates.path(write.path, values), body, headers=write.headers)

    def _chosen(self, service: Service) -> HttpAdmissionOptions:
        return options.of(service, self.lever, HttpAdmissionOptions)
