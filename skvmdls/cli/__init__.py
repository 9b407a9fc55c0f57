"""The command line: fit, predict, explain and report on folders of images."""
