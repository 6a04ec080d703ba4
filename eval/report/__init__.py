"""The page of an exam: one self-contained HTML file with no script and no external request."""
