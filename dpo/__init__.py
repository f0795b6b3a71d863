"""Preference optimisation of image diffusion models, from a folder of images to an adapter. Imports nothing heavy."""


class StudioError(Exception):
    """Something a person can mend. The message says what, where and what to do, and is shown to them as it is."""
