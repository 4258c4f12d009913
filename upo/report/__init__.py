"""Tables over many runs, beside the published figures."""
