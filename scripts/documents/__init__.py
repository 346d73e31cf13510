"""The pages of docs/ that are made from the types of the code: `make documents`."""
