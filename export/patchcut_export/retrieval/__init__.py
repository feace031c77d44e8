"""Images found by words: CLIP's towers and tokenizer, an index of images, and search. Offline."""
