"""Search with connectionist temporal classification (CTC): alone, or beside an attention decoder.

Everything here works on log-probabilities (B, S, V) of labels at memory positions ("frames"),
blank 0, and knows nothing of what made them.
"""
