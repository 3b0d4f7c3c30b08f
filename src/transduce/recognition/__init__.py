"""From recordings to transcripts: long files, word times, subtitles, live sound.

What recognises is anything that answers waveforms with outputs (see `transcribing.Recognizer`).
"""
