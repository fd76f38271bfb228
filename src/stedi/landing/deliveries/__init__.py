"""What a call names, in folders (`local`) and in buckets (`remote`): files to land, none of them followed out of place."""
