"""A small inference server: Open Inference Protocol v2 over HTTP, dynamic batching, several loaded versions.

`python -m demo.server --help` lists the options. Modules: `protocol` (tensors on the wire), `engines` (what computes a
batch), `repository` (versions and which one is served), `batching` (queue to batches), `metrics`, `app` (the calls).
"""
