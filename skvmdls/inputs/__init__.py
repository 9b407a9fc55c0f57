"""Check inputs and labels, read rows in batches, and standardise them."""
