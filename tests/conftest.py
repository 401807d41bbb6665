"""That this file is here puts its folder on the path, so that tests share `small_networks`."""
