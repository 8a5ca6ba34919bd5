"""The encoder: reads frames, folds groups of them into snapshots and streams those to a decoder.

Runs on the detector PC, so nothing in here may load torch, ONNX Runtime, FastAPI or Zarr at import.
"""
