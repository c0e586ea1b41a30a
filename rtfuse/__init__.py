"""capture → sync → align → fuse → publish: thermal and RGB in, one fused stream out."""
