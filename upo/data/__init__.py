"""Interactions and their checks, a reader for each dataset, the synthetic world, downloads."""
