import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that asks the network is a test that fails elsewhere
