"""Trains the nets that ship: `pool` renders movies, `data` folds them, `model` is the net; then `train`, `evaluate`, `export`.

    python -m framefold_training.train --tier fast --minutes 80 --out training-runs/fast
    python -m framefold_training.export training-runs/fast decoder/framefold_decoder/models/fast
    python -m framefold_training.finetune --stream ID --run training-runs/fast --out training-runs/mine   # on your own movie

Nothing here runs in the encoder or the decoder; they need no torch.
"""
