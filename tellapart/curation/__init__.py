"""Is the data good: duplicates, leaks, outliers, wrong labels, and a summary of the contents."""
