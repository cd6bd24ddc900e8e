"""What a person looks at: tables, HTML pages, contact sheets, the explorer."""
