"""Loops that numba compiles: `pip install "bnlib[fast]"`; used where they are found."""
