"""What makes N devices one and R seeds one run; it knows nothing of ratings."""
