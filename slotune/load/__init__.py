"""Load that is honest about time: open-loop arrivals and a cheap HTTP client, for `slotune stress` and the demo."""
