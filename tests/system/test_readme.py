"""Every command of the README is run: shell and Python blocks in order, beside a real decoder, in a fresh folder.

`make demo` and `make test` have their own runs; napari is a desktop program, of its line only the path is checked; training
takes hours, of its lines the options are.
"""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import tifffile

from processes import PROGRAMS, Decoder

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)
ELSEWHERE = ("make demo\nmake test\n", "framefold-decoder serve --data framefold-data\n")
TRAINING = next(text for _, text in BLOCKS if "framefold_training" in text)


def test_every_block_of_the_readme_works(tmp_path):
    counts = np.random.default_rng(0).poisson(20, (45, 64, 64)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "movie.tif", counts)
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    decoder = Decoder(tmp_path / "framefold-data")
    shown = 0
    with decoder:
        for language, text in BLOCKS:
            if text in ELSEWHERE or text == TRAINING:
                continue
            here = text.replace("http://127.0.0.1:8571", f"http://{decoder.http}")
            if text.startswith("framefold-encoder"):
                environment["FRAMEFOLD_ENCODER_TO"] = decoder.link
                here = here.replace("frames=400", "shape=64x64&frames=45")  # the same command, small
            if text.startswith("napari"):
                assert list(tmp_path.glob(text.split()[1]))
                continue
            command = ["bash", "-euc", here] if language == "sh" else [str(PROGRAMS / "python"), "-c", here]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, (here, done.stdout, done.stderr)
            if text.startswith("framefold-encoder"):
                decoder.wait_until_decoded()
            shown += 1
    assert shown == 4
    assert np.load(tmp_path / "frames.npy").shape == (20, 64, 64)
    assert tifffile.imread(tmp_path / "frame.tif").shape == (64, 64)
    assert (tmp_path / "frame.png").read_bytes().startswith(b"\x89PNG")


def test_no_block_is_forgotten():
    assert {text for _, text in BLOCKS} >= set(ELSEWHERE)
    assert len(BLOCKS) == 8


def test_training_has_the_options_it_is_told():
    lines = [line.split() for line in TRAINING.splitlines() if line.startswith("python")]
    assert len(lines) == 3
    helps = {}
    for _, _, module, *words in lines:
        if module not in helps:
            command = [PROGRAMS / "python", "-m", module, "--help"]
            helps[module] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", helps[module]))


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parents[2] / target).exists(), target
