"""CSV, Parquet and data frames: read, checked and written once; ids to indices and back."""
