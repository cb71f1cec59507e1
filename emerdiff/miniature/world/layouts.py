"""The kinds of scene: how each is laid out, and what may stand in it."""

from .buildings import fence, house, street_lamp
from .canvas import Canvas
from .figures import animal, person
from .landscape import hills, land, mountains, path, sky, strip
from .plants import bush, tree
from .room import room
from .street import road_across, road_along
from .vehicles import boat, car

# What draws a thing, its height in metres, the share of the frame's height that it may take up.
THINGS = {
    "tree": (tree, 7, (0.2, 1.0)),
    "bush": (bush, 1.3, (0.07, 0.35)),
    "fence": (fence, 1.1, (0.07, 0.35)),
    "lamp": (street_lamp, 5, (0.4, 1.2)),
    "house": (house, 7, (0.2, 0.8)),
    "car": (car, 1.5, (0.13, 0.4)),
    "person": (person, 1.7, (0.22, 1.0)),
    "animal": (animal, 1.4, (0.12, 0.5)),
}


def backdrop(c: Canvas, rng, peaks: float = 0.4) -> None:
    """The sky, mountains with the chance `peaks`, and often hills."""
    sky(c, rng)
    if rng.random() < peaks:
        mountains(c, rng)
    if rng.random() < 0.6:
        hills(c, rng)


def scatter(c: Canvas, rng, **counts) -> None:
    """Queue up to the given number of things of each kind at spots within the frame."""
    for noun, most in counts.items():
        draw, height, share = THINGS[noun]
        for _ in range(int(rng.integers(0, most + 1))):
            c.place(draw, height, share)


def alpine(c: Canvas, rng) -> None:
    c.horizon = rng.uniform(0.3, 1.0)
    backdrop(c, rng, 1)
    land(c, rng, str(rng.choice(["meadow", "meadow", "water", "soil"])))
    if rng.random() < 0.5:
        path(c, rng)
    scatter(c, rng, tree=5, bush=3, house=1, animal=3, fence=1, person=1)


def shore(c: Canvas, rng) -> None:
    """Boats on the water, often seen from a beach."""
    backdrop(c, rng)
    c.horizon = max(c.horizon, -0.15)
    land(c, rng, "water")
    near = c.eye / rng.uniform(0.15, 0.9)
    beach = rng.random() < 0.75
    if beach:
        line = strip(c, 0.001 + near * 0.02, near, rng.uniform(-0.5, 0.5), 0, near * 0.12)
        land(c, rng, str(rng.choice(["soil", "soil", "meadow"])), line)
        for draw in rng.choice([tree, person, person, bush, fence], int(rng.integers(0, 5))):
            c.place(draw, 2, y=c.horizon + c.eye / near * rng.uniform(1.15, 2.5))
    for _ in range(int(rng.integers(1, 5))):
        c.place(boat, 6, (0.15, 0.8), y=c.horizon + c.eye / near / rng.uniform(1.4, 6) if beach else None)


def pasture(c: Canvas, rng) -> None:
    backdrop(c, rng)
    land(c, rng, str(rng.choice(["meadow", "meadow", "meadow", "soil"])))
    for _ in range(int(rng.integers(0, 3))):
        path(c, rng)
    scatter(c, rng, animal=6, tree=3, bush=3, fence=3, house=1, person=1)


def street(c: Canvas, rng) -> None:
    """A road with pavements, houses, cars, lamps and people."""
    c.horizon = rng.uniform(-0.1, 0.85)
    backdrop(c, rng, 0.2)
    land(c, rng, str(rng.choice(["meadow", "pavement", "soil", "meadow"])))
    road = road_along if rng.random() < 0.5 else road_across
    road(c, rng, rng.uniform(4, 8), rng.uniform(1.5, 3.5))
    scatter(c, rng, car=3, person=4, lamp=4, bush=1, tree=1)


def village(c: Canvas, rng) -> None:
    backdrop(c, rng)
    land(c, rng, str(rng.choice(["meadow", "meadow", "soil", "pavement"])))
    if rng.random() < 0.7:
        path(c, rng)
    c.place(house, 7, (0.25, 0.9))
    scatter(c, rng, house=4, tree=4, car=2, person=2, fence=2, bush=3, lamp=1, animal=1)


def close_up(draw, height: float, share=(0.6, 1.25), **around):
    """A kind of scene in which one thing fills much of the frame."""

    def layout(c: Canvas, rng) -> None:
        c.focus(draw, height, share)
        backdrop(c, rng, 0.3)
        if draw is boat:
            land(c, rng, "water")
        else:
            land(c, rng, str(rng.choice(["meadow", "meadow", "soil", "pavement", "road"])))
            if rng.random() < 0.5:
                path(c, rng)
        scatter(c, rng, **around)

    return layout


def portrait(c: Canvas, rng) -> None:
    """A close-up with a shallow depth of field: what lies behind the subject is out of focus."""
    kinds = ("person", "person", "animal", "car", "tree", "house")
    LAYOUTS[str(rng.choice(kinds))](c, rng)
    c.blur = rng.uniform(0.004, 0.014)


LAYOUTS = {
    "mountains": alpine,
    "shore": shore,
    "pasture": pasture,
    "street": street,
    "village": village,
    "house": close_up(house, 8, (0.7, 1.5), bush=3, tree=2, person=1, fence=1, car=1),
    "car": close_up(car, 1.6, (0.35, 0.75), tree=2, house=2, person=1, lamp=1, fence=1),
    "person": close_up(person, 1.75, (0.8, 2.2), person=1, tree=2, house=2, car=1, lamp=1),
    "tree": close_up(tree, 7.5, (0.8, 1.5), bush=2, tree=2, fence=2, animal=2, person=1),
    "animal": close_up(animal, 1.5, (0.35, 0.8), tree=2, fence=2, animal=2, house=1, bush=1),
    "boat": close_up(boat, 6.5, (0.7, 1.4)),
    "room": room,
    "portrait": portrait,
}
KINDS = tuple(LAYOUTS)
# What a seed draws if no kind is given. Rooms and portraits came later and are not among them, so that each seed's
# scene, and thus every score that was measured on it, stays the same.
SEEDED = KINDS[:11] + ("street", "street", "village", "village", "pasture", "shore")
