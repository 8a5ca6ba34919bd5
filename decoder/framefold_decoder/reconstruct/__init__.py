"""From snapshots back to frames: `registry` chooses between the nets (`onnx_net`) and the classic solver (`gap_tv`)."""
