"""What keeps customers private: pseudonyms and the proof of consent."""
