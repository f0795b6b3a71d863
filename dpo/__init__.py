"""Preference optimisation of image diffusion models, from a folder of images to an adapter. Imports nothing heavy."""

import os

# A job shares the cores with the page and the browser. By default the threads of a CPU kernel spin while they wait for each
# other, and once they outnumber the free cores a training step takes 30 times as long. Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class StudioError(Exception):
    """Something a person can mend. The message says what, where and what to do, and is shown to them as it is."""
