"""The LightningModules of a run, and what runs them."""
