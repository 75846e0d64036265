"""One picture as inline SVG markup: elements in, escaped markup out."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass
class Svg:
    """Collects the elements of one picture, whose size is in pixels of its own view box."""

    width_px: float
    height_px: float
    label: str
    parts: list[Markup] = field(default_factory=list)

    def add(self, name: str, content: object = "", **attributes: object) -> None:
        """Add one element; '_' in an attribute's name stands for '-', a trailing one for nothing."""
        pairs = Markup(" ").join(
            Markup('{}="{}"').format(key.rstrip("_").replace("_", "-"), plain(value))
            for key, value in attributes.items()
        )
        self.parts.append(Markup("<{0} {1}>{2}</{0}>").format(name, pairs, content))

    def markup(self) -> Markup:
        """The picture; its label is read by screen readers."""
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            plain(self.width_px), plain(self.height_px), self.label, Markup("").join(self.parts)
        )


def fitted(text: str, room_px: float, letter_px: float) -> dict[str, object]:
    """Attributes that squeeze a text which letters of this width would carry out of its room."""
    return {"textLength": room_px, "lengthAdjust": "spacingAndGlyphs"} if len(text) * letter_px > room_px else {}


def plain(value: object) -> str:
    """An attribute's value; numbers with two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
