"""The rules, one file each; Fixit finds them here: `enable = ["diffopt.doctor.rules"]`."""
