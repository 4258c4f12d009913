import os

import torch
from hypothesis import settings

os.environ["UPO_CONFIG_DIR"] = "nowhere"  # what a person has tuned is not for the tests
torch.set_num_threads(1)  # tiny tensors: a second thread only makes the first wait
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
