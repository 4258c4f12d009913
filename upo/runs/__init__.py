"""One run: composed, built, trained, measured and written."""
