"""From files to batches: corpora, the catalogue, tokenizers, prepared stores, batches, checks."""
