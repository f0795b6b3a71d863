"""The demo: a small painted world, its measures, and the whole loop on it.

`world` draws captioned pictures, `measures` reads pixels back into facts, `loop` runs curation, training and judgement
with a programmatic preference. Nothing here is used for a user's own images.
"""
