"""What is looked at before anything is learned: one kind of finding a file; `everything.check` runs them."""
