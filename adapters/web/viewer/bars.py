"""Small charts as SVG, drawn on the server, without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from adapters.web.viewer.format import plain

HEIGHT = 100


def spark(values: Sequence[float], said: str) -> Markup:
    """A row of bars, the highest of full height; `said` describes it for screen readers."""
    high = max(values, default=0) or 1
    bars = Markup("").join(
        Markup('<rect x="{}" y="{}" width="3" height="{}"/>').format(4 * place, *_bar(24 * value / high, 24))
        for place, value in enumerate(values)
        if value
    )
    box = Markup(
        '<svg class="spark" viewBox="0 0 {} 24" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    )
    return box.format(4 * len(values) - 1, plain(said), bars)


def stacked(parts: Sequence[tuple[str, Mapping[int, float]]]) -> Markup:
    """Stacked bars: for each its title and its values by series (of class c0, c1, …)."""
    high = max((sum(values.values()) for _, values in parts), default=0) or 1
    bars = []
    for place, (title, values) in enumerate(parts):
        top = float(HEIGHT)
        layers = []
        for series, value in sorted(values.items()):
            height = HEIGHT * value / high
            top -= height
            layer = Markup('<rect class="c{}" x="{}" y="{}" width="8" height="{}"/>')
            layers.append(layer.format(series, 10 * place + 1, round(top, 2), round(height, 2)))
        # The invisible area shows the title, too.
        hold = Markup('<rect class="hold" x="{}" y="0" width="10" height="{}"/>').format(10 * place, HEIGHT)
        whole = Markup("<g><title>{}</title>{}{}</g>")
        bars.append(whole.format(plain(title), hold, Markup("").join(layers)))
    box = Markup('<svg class="bars" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>')
    return box.format(10 * max(1, len(parts)), HEIGHT, Markup("").join(bars))


def _bar(height: float, of: float) -> tuple[float, float]:
    """Top and height of a bar, which is never too low to be seen."""
    height = max(1.0, height)
    return round(of - height, 2), round(height, 2)
