"""Privacy: keys, pseudonyms, consent, tombstones, and signed and sealed files.

`pseudonyms` has the key and makes pseudonyms of addresses; `consent` decides who consents; `addresses` reads the
addresses that a command names. `tokens` and `decoding` find a person in texts and bytes, in any spelling, encoding or
compression. `tombstones`, `receipts` and `journal` keep what must survive an erasure; `state` seals these files,
`signatures` signs for third parties. `key_change` is the state file of a key rotation.
"""
