from __future__ import annotations

from xml.etree import ElementTree

from diffopt.studies.drawing import bars, dots

SVG = "{http://www.w3.org/2000/svg}"


def test_every_value_is_a_dot_in_the_colour_of_its_kind() -> None:
    chart = ElementTree.fromstring(dots("a < b", ["1", "2"], [50.0, 20.0], ["exact", "changed"], {"near": 35.0}))
    circles = chart.findall(f"{SVG}circle")
    assert len(circles) == 2
    assert len({circle.get("fill") for circle in circles}) == 2
    assert float(circles[0].get("cy", 0)) < float(circles[1].get("cy", 0))
    assert any(text.text == "near" for text in chart.findall(f"{SVG}text"))


def test_every_group_has_a_bar_a_series_within_the_frame() -> None:
    groups = {"one": {"pairs": 95.0, "blocks": 30.0}, "two": {"pairs": 93.0, "blocks": 120.0}}
    chart = ElementTree.fromstring(bars("shares", groups, top=100.0, band=(90.0, 98.0)))
    rects = [rect for rect in chart.findall(f"{SVG}rect") if rect.get("class") != "band"]
    assert len(rects) == 4
    assert all(float(rect.get("y", -1)) >= 0 for rect in rects)
