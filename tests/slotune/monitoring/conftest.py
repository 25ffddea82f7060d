from tests.slotune.story import told  # noqa: F401 (a fixture)
