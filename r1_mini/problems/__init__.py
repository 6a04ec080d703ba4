"""What is asked and what is right: problems, their worked solutions, their splits, and the checker of a single step."""
