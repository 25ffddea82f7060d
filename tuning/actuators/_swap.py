"""Every replica is brought to the wanted knobs, or none: sent, read back, and put back where one of them says no.

Shared by the batch and the precision levers. What a server says about a change counts less than what it shows: a "yes"
that shows another value is a change made, a "no" is believed when the old value is still there, and no answer at all
is settled by looking again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from tuning.actuators import _options as options
from tuning.actuators._http import Unanswered
from tuning.errors import ControlRefused, ControlUnreachable, NotApplied, OutcomeUnknown, SlotuneError
from tuning.model import Knob

Knobs = dict[str, Knob]
Sleep = Callable[[float], None]


class Place(Protocol):
    """One endpoint. shown: its address for people."""

    shown: str

    def read(self) -> Knobs:
        """Raises ControlUnreachable, ControlRefused."""
        ...

    def send(self, wanted: Knobs) -> None:
        """Raises also Unanswered (it may have landed) and NotApplied (it landed, and nothing serves now)."""
        ...


def swap(
    places: Mapping[str, Place],
    before: Mapping[str, Knobs],
    wanted: Knobs,
    *,
    sleep: Sleep,
    looks: int,
    back: Callable[[], None] = lambda: None,
    undoes: bool = False,
) -> dict[str, Knobs]:
    """What each place that was changed shows now, by name; places that show `wanted` already are not asked.

    looks: how often a place that gave no answer is read. back: called when the way back begins. undoes: this is the way
    back: what cannot be brought back keeps no other place from it, and nothing that was brought back is made again.
    Raises ControlUnreachable or ControlRefused (nothing is changed), NotApplied (another value than asked for came into
    force: its `before` and `after` say what stood and what stands now), OutcomeUnknown (one may be changed, or could
    not be put back).
    """
    if undoes:
        return _brought_back(places, before, wanted, sleep, looks)
    made: dict[str, Knobs] = {}
    for name, place in places.items():
        if options.agrees(before[name], wanted):
            continue
        try:
            made[name] = _bring(place, before[name], wanted, sleep, looks)
        except NotApplied as error:
            touched = [*made, name] if _moved(error) else [*made]
            back()
            raise _undone(error, name, places, before, touched, sleep, looks) from error
        except (ControlRefused, ControlUnreachable) as error:
            back()
            _put_back(error, places, before, made, sleep, looks)
            raise
    return made


def _brought_back(
    places: Mapping[str, Place], before: Mapping[str, Knobs], wanted: Knobs, sleep: Sleep, looks: int
) -> dict[str, Knobs]:
    """Every place that can be is brought back, whatever the others do; then the first error, of what is not, is raised.
    A place that shows another value is asked once more at once: somebody may have written at the same moment, and what
    it makes of the same question twice is its own."""
    made: dict[str, Knobs] = {}
    errors: list[SlotuneError] = []
    for name, place in places.items():
        if options.agrees(before[name], wanted):
            continue
        try:
            try:
                made[name] = _bring(place, before[name], wanted, sleep, looks)
            except NotApplied as error:
                if not _moved(error):
                    raise
                made[name] = _bring(place, before[name], wanted, sleep, looks)
        except (NotApplied, ControlRefused, ControlUnreachable, OutcomeUnknown) as error:
            errors.append(error)
    if errors:
        raise next((error for error in errors if isinstance(error, NotApplied)), errors[0])
    return made


def show(values: Mapping[str, Knob]) -> str:
    """The knobs for people."""
    return ", ".join(f"{name} {values[name]}" for name in sorted(values))


def _bring(place: Place, before: Knobs, wanted: Knobs, sleep: Sleep, looks: int) -> Knobs:
    """Send and settle: the knobs that are in force, which are the wanted ones. Errors as for `swap`."""
    said: SlotuneError | None = None
    try:
        place.send(wanted)
    except (Unanswered, ControlRefused, NotApplied) as error:
        said = error
    shown = _read_back(place, wanted, sleep, looks, patient=isinstance(said, Unanswered))
    if shown is None:
        raise OutcomeUnknown(f"{said or place.shown}; the read-back got no answer either") from said
    stands = {name: shown[name] for name in wanted if name in shown}
    if isinstance(said, NotApplied):
        raise NotApplied(str(said), before=before, after=stands) from said
    if options.agrees(shown, wanted):
        return shown
    if options.agrees(before, stands):
        if isinstance(said, ControlRefused):
            raise said
        if said is not None:
            raise OutcomeUnknown(f"{said}; the read-back still shows {show(stands)}") from said
    answer = str(said) if said is not None else f"{place.shown} accepted {show(wanted)}"
    raise NotApplied(f"{answer} but its read-back shows {show(stands)}", before=before, after=stands) from said


def _read_back(place: Place, wanted: Knobs, sleep: Sleep, looks: int, *, patient: bool) -> Knobs | None:
    """What the place shows; None when it does not answer, or nothing usable. patient: a change may still land."""
    shown: Knobs | None = None
    for attempt in range(looks):
        try:
            shown = place.read()
        except (ControlUnreachable, ControlRefused):
            shown = None
        if shown is not None and (options.agrees(shown, wanted) or not patient):
            return shown
        if attempt + 1 < looks:
            sleep(0.5 * 2**attempt)
    return shown


def _moved(error: NotApplied) -> bool:
    """Whether anything at the place changed. A place that serves nothing at all has changed, whatever it shows."""
    return isinstance(error.__cause__, NotApplied) or not options.agrees(error.before, error.after)


def _undone(
    error: NotApplied,
    name: str,
    places: Mapping[str, Place],
    before: Mapping[str, Knobs],
    touched: Iterable[str],
    sleep: Sleep,
    looks: int,
) -> NotApplied:
    """The error with what stands after everything that was touched was put back, as far as it could be."""
    try:
        _put_back(error, places, before, touched, sleep, looks)
    except NotApplied as worse:
        return worse
    if name not in touched:
        return error
    back = {knob: before[name][knob] for knob in error.after if knob in before[name]}
    return NotApplied(f"{error}; {show(back)} was put back", before=before[name], after=back)


def _put_back(
    why: SlotuneError,
    places: Mapping[str, Place],
    before: Mapping[str, Knobs],
    touched: Iterable[str],
    sleep: Sleep,
    looks: int,
) -> None:
    """Raises OutcomeUnknown, or NotApplied with what stands, where a place does not take its old knobs again."""
    for name in touched:
        try:
            _bring(places[name], {}, before[name], sleep, looks)
        except NotApplied as error:
            words = f"{why}; and {name}, changed before, could not be put back ({error})"
            raise NotApplied(words, before=before[name], after=error.after) from error
        except SlotuneError as error:
            raise OutcomeUnknown(f"{why}; and {name}, changed before, could not be put back ({error})") from error
