"""The page of an exam: one self-contained HTML file that requests nothing; its only script is our own, inline."""
