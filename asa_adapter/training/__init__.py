"""One training run: its checks, its report, and the adapter that comes out of the search."""
