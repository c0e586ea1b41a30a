"""Write files, and read recordings.

`format` defines the recording of both streams, `raw` writes it, `replay` reads it; `session` is `rtfuse record`.
`video` writes fused frames.
"""
