"""Is the data good: duplicates, leaks, outliers, wrong labels, and the summary that `inspect` gives."""
