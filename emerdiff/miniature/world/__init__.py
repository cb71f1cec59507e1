"""The miniature's world, by what is drawn: `..scenes.draw_scene` composes it.

A scene is painted back to front: sky, far ridges, ground, then the things that stand on the ground. Positions are in
units of the frame (y down), with the horizon at `Canvas.horizon`; a thing is drawn in metres in a local frame whose
origin is where it touches the ground (y up). Every surface goes through `Canvas.paint`, which lays a material (texture,
light and shades of a colour) inside polygons and writes the part's label where coverage reaches one half.

What a part is made of, its colour, the light, the season and the framing vary over broad, overlapping ranges, so that
parts can be recognised by their texture, shape and surroundings, but not by their colour or place.

All functions that draw take the canvas `c` and a random generator `rng`. The order of the numbers drawn from it is part
of the world: one more or one less, and a seed shows another scene. Tests hold digests of what the seeds show.
"""
