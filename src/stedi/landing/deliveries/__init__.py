"""What a call names, in folders (`local`) and in buckets (`remote`): files to land, none led to out of place."""
