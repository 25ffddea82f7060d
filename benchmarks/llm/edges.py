"""Upper edges of a real server's histograms (vLLM 0.32): seconds, and tokens of prompts and answers."""

from __future__ import annotations

import numpy as np

TTFT_S = np.array(
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560]
)
GAP_S = np.array([0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80])
E2E_S = np.array([0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680])
TOKENS = np.array([k * 10.0**e for e in range(5) for k in (1, 2, 5)])
