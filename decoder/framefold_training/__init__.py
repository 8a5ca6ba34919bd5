"""Trains the nets that ship: `simulate` and `data` make clips, `model` is the net; then `train`, `evaluate`, `export`.

    python -m framefold_training.train --ratio 20 --minutes 50 --out training-runs/b20
    python -m framefold_training.export training-runs/b20 decoder/framefold_decoder/models/NAME

Nothing here runs in the encoder or the decoder; they need no torch.
"""
