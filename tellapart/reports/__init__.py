"""Output for people: tables, HTML pages, contact sheets, the explorer."""
