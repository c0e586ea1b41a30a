"""Write files, and read back what was recorded.

`raw` records both streams as they come, `replay` reads them, `session` is `rtfuse record`; `video` writes fused frames.
"""
