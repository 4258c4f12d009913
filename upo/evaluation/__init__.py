"""An estimator measured, and what chooses its epoch."""
