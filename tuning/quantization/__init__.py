"""INT8 that is measured before it is trusted.

    load_model ─▶ load_calibration ─▶ quantise ─▶ judge (agreement, accuracy, speed) ─▶ publish ─▶ swap
    model.py      calibration.py      artefacts.py  gates.py, measure.py                repository.py
                                      sensitivity.py: which layers to leave in FP32 when the accuracy gate says no
                                      tensorrt_engine.py: the engine for a GPU, with a manifest that is checked at load
    pipeline.py joins them; build_target.py says where a build runs.

Two artefacts per model, because the runtimes need different formats (see artefacts.py). Nothing here opens a socket.
Heavy imports (onnxruntime.quantization, tensorrt) are made inside functions: every Airflow task process imports this.
"""

from __future__ import annotations
