import torch
from hypothesis import settings

torch.set_num_threads(1)  # tiny tensors: a second thread only makes the first wait
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
