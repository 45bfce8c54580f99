"""Tables of what lifts: pipeline classes and example scripts of the installed diffusers."""
