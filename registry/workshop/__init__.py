"""Products: quantizations, their proof, and the pipeline that makes them."""
