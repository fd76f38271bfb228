"""Privacy: keys, pseudonyms, consent, tombstones, and signed and sealed files.

`pseudonyms` holds the key and what stands for an address; `consent` says who agrees; `addresses` reads whom a command
means. `tokens` and `decoding` find a person in texts and in bytes, whatever the spelling, encoding or packing.
`tombstones`, `erased`, `receipts` and `journal` keep what must outlive an erasure; `state` seals every such file,
`signatures` signs for third parties. `key_change` is the note of another key on its way.
"""
