"""The fusers, behind `open_fuser(name)`."""
