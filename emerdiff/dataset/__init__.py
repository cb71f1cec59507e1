"""From pictures to a dataset: what `emerdiff segment` does with many of them.

- `pictures`: which pictures, in files, folders and lists; twins among them
- `run`: segments those that are missing, one after the other, the next being read meanwhile
- `labelled`: one picture with its labels, as every format gets it
- `formats`: what each format makes of it, and of all; `polygons` and `brush` encode masks
- `folder`: the output folder, which belongs to one run and can be continued, shared and killed at any time
"""
