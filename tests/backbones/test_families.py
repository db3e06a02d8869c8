"""docs/backbones.md tells what `FAMILIES` holds."""

import re

from groups import choices
from places import REPOSITORY

from lpt.backbones.families import FAMILIES

PAGE = (REPOSITORY / "docs" / "backbones.md").read_text(encoding="utf-8")


def row(model_type, family):
    """What the page's table must say of a family, but for the last column."""
    positions = "relative" if family.relative else "rotary" if family.rotary else "absolute"
    kind = "decoder" if family.causal else "encoder"
    last_layer = "yes" if family.keys_values else "no"
    return [f"`{model_type}`", kind, positions, ", ".join(family.attentions), last_layer]


def test_the_page_has_a_row_for_every_family_and_a_place_for_every_backbone():
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:3] == "| `"]
    table = table[1:]  # its heading
    assert [cells[:-1] for cells in table] == [row(name, family) for name, family in sorted(FAMILIES.items())]
    assert sorted(re.findall(r"`(.+?)`", " ".join(cells[-1] for cells in table))) == [
        name
        for name in choices("backbone")
        if not name.startswith("random/")  # shapes for lpt bench
    ]
