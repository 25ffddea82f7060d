"""The version of a registered model in MLflow, by an alias: what the server that follows the alias is to serve.

The way back sets the alias to the proven version again; versions and their files stay as they are. Its release is told
with what its run logged: metrics, and the name of the dataset. A server that reads the alias only when it starts serves
the old version until then, and the proof says so. Needs an MLflow server with aliases (2.3 or later); spoken to over
its REST API with the connection's login or token, so no MLflow client is needed.

Options: settings.release.MlflowReleaseOptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from detection.model import Service
from detection.outside_text import printable
from tuning.actuators import _options as options
from tuning.actuators._choice_endpoints import ChoiceEndpoints
from tuning.actuators._http import Http
from tuning.actuators._swap import Knobs
from tuning.actuators.settings.release import MlflowReleaseOptions
from tuning.errors import ControlRefused, ControlUnreachable
from tuning.model import Setting

_API = "/api/2.0/mlflow"
_MOST_METRICS = 4
_LETTERS = 60


class MlflowRelease(ChoiceEndpoints):
    """The release lever of a service whose version is an alias in MLflow's registry."""

    name, lever, knob = "mlflow_release", "release", "version"
    options = MlflowReleaseOptions

    def read(self, service: Service) -> Setting:
        """As every release lever, with what the runs of this version and of the one before it logged."""
        setting = super().read(service)
        http = next(iter(self._endpoints(service).values()))
        note = self._note(http, self._model(service), str(setting.values[self.knob]))
        return setting.model_copy(update={"facts": {"note": note}}) if note else setting

    def read_one(self, service: Service, http: Http) -> Knobs:
        model, alias = self._model(service), options.of(service, self.lever, MlflowReleaseOptions).alias
        try:
            found = self._get(http, "registered-models/alias", name=model, alias=alias)
        except ControlRefused as error:
            said = f"MLflow shows no alias {alias!r} of the registered model {model!r}"
            raise ControlRefused(f"{said}: {error}") from error
        version = _of(found, "model_version").get("version")
        if not isinstance(version, str | int) or isinstance(version, bool) or not str(version).isdigit():
            raise ControlRefused(f"MLflow at {http.shown} shows no version for the alias {alias!r} of {model!r}")
        return {self.knob: str(version)}

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        """The alias is set only to a version that is there and ready: else nothing changed."""
        version = str(wanted["version"])
        model, alias = self._model(service), options.of(service, self.lever, MlflowReleaseOptions).alias
        found = _of(self._get(http, "model-versions/get", name=model, version=version), "model_version")
        if found.get("status", "READY") != "READY":
            status = printable(str(found.get("status")), _LETTERS)
            raise ControlRefused(f"version {version} of {model!r} is {status} in MLflow, not READY")
        body = {"name": model, "alias": alias, "version": version}
        http.call("POST", f"{_API}/registered-models/alias", body)

    def _model(self, service: Service) -> str:
        return options.of(service, self.lever, MlflowReleaseOptions).model or service.name

    def _get(self, http: Http, what: str, **query: str) -> Any:
        return http.call("GET", f"{_API}/{what}?{urlencode(query)}")

    def _note(self, http: Http, model: str, version: str) -> str:
        """What was logged of a version and of the one before it; "" where nothing was, or it cannot be read: a note
        holds up nothing."""
        try:
            mine = self._logged(http, model, version)
            before = self._logged(http, model, str(int(version) - 1)) if int(version) > 1 else ""
        except ControlUnreachable:
            return ""
        return "; ".join(part for part in (mine, before) if part)

    def _logged(self, http: Http, model: str, version: str) -> str:
        """ "version 7: accuracy 0.81, on shop-2026-11"; "" where the version has no run, or is gone."""
        try:
            found = _of(self._get(http, "model-versions/get", name=model, version=version), "model_version")
            run_id = found.get("run_id")
            run = _of(self._get(http, "runs/get", run_id=run_id), "run") if isinstance(run_id, str) and run_id else {}
        except ControlRefused:
            return ""
        metrics = [one for one in _of(run, "data").get("metrics") or () if isinstance(one, Mapping)]
        told = [f"{printable(str(one.get('key')), _LETTERS)} {one['value']:.4g}" for one in metrics if _number(one)]
        inputs = _of(run, "inputs").get("dataset_inputs") or ()
        names = [str(_of(one, "dataset").get("name") or "") for one in inputs if isinstance(one, Mapping)]
        data = [f"on {printable(name, _LETTERS)}" for name in dict.fromkeys(names) if name]
        words = ", ".join([*sorted(told)[:_MOST_METRICS], *data[:2]])
        return f"version {version}: {words}" if words else ""


def _of(found: object, key: str) -> Mapping[str, Any]:
    """The object at a key of an answer; {} where there is none."""
    inner = found.get(key) if isinstance(found, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _number(metric: Mapping[str, Any]) -> bool:
    return isinstance(metric.get("value"), int | float) and not isinstance(metric.get("value"), bool)
