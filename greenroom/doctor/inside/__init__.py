"""The doctor's code inside the application's own processes: the child that imports it, and its worker."""
