"""The shop whose code the samples of the documentation are."""
