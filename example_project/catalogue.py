"""What the shop sells."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Piece:
    """One piece. ``tint`` names the colour of the wall behind it in style.css."""

    slug: str
    sku: str
    name: str
    price: Decimal
    tint: str
    line: str
    story: str
    glaze: str
    size: str
    alt: str


_PIECES = [
    Piece(
        slug="moon-jar",
        sku="SG-101",
        name="Moon jar",
        price=Decimal("184.00"),
        tint="mist",
        line="Two bowls, joined at the belly.",
        story="Thrown as two bowls and joined while both are soft, so the widest point is also the seam. Run a hand "
        "along it and you can tell where. It holds dry grasses, walking sticks, or nothing, and nothing suits it best.",
        glaze="Chalk white, two coats",
        size="28 cm high, 27 cm wide",
        alt="A round white jar with a narrow foot and mouth",
    ),
    Piece(
        slug="tumbler",
        sku="SG-117",
        name="Tumbler",
        price=Decimal("22.50"),
        tint="sand",
        line="For water, and for what follows.",
        story="The first thing we make each morning, thirty at a time, to find out how the clay is today. The lip is "
        "thin where you drink and the base heavy where you put it down.",
        glaze="Tide-line blue over bare clay",
        size="11 cm high, 0.3 l",
        alt="A straight cup, blue above and bare sandy clay below",
    ),
    Piece(
        slug="supper-bowl",
        sku="SG-122",
        name="Supper bowl",
        price=Decimal("38.00"),
        tint="moss",
        line="Soup on Monday, plums on Sunday.",
        story="Wide enough for pasta and deep enough for broth. The foot is turned high so that it can be carried "
        "hot, and the rim is left a little wet-looking where the glaze gathers and stops.",
        glaze="Samphire green",
        size="8 cm high, 21 cm wide",
        alt="A wide green bowl on a small foot",
    ),
    Piece(
        slug="bud-bottle",
        sku="SG-130",
        name="Bud bottle",
        price=Decimal("46.00"),
        tint="rose",
        line="One stem is plenty.",
        story="Closed in at the shoulder until only a finger's width is left. It makes a single stem look like a "
        "decision, and it stands on narrow shelves.",
        glaze="Oxblood, reduced hard",
        size="21 cm high",
        alt="A dark red bottle with a long narrow neck",
    ),
    Piece(
        slug="milk-jug",
        sku="SG-141",
        name="Milk jug",
        price=Decimal("41.00"),
        tint="sky",
        line="Pours without a drip. We checked.",
        story="The handle is pulled from the body, not stuck on, and the lip is cut with a bent wire. Forty jugs went "
        "back into the clay bin before one stopped dripping; this is that one's family.",
        glaze="Oatmeal, blue at the shoulder",
        size="16 cm high, 0.7 l",
        alt="An oatmeal-coloured jug with a round handle and a blue shoulder",
    ),
    Piece(
        slug="salt-jar",
        sku="SG-156",
        name="Salt jar",
        price=Decimal("34.00"),
        tint="dusk",
        line="Keeps dry what the coast makes damp.",
        story="The lid sits in a groove and is heavy enough to close by itself. Left unglazed inside: bare clay "
        "drinks what moisture there is, and the salt stays loose.",
        glaze="Iron black, bare inside",
        size="13 cm high",
        alt="A black lidded jar with a round knob",
    ),
]

PIECES = {piece.slug: piece for piece in _PIECES}
