"""Plots as SVG, of lines over two axes."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 44, 50
COLOURS = ["#1f6feb", "#cf5a00", "#1a7f37", "#8250df", "#bf3989", "#57606a"]


def latency(curves):
    """Latency by load: a line for each server and quantile."""
    lines = []
    for number, curve in enumerate(curves):
        name = f"{curve['server']}, {curve['kind']}"
        for quantile, dash in (("p50", ""), ("p99", "5 4")):
            points = [(point["rate"], point[quantile] / 1000) for point in curve["points"]
                      if point["count"]]
            lines.append((f"{name}, {quantile}", points, COLOURS[number % len(COLOURS)], dash))
    return plot("Latency by load", "calls a second", "ms (logarithmic)", lines, logarithmic=True)


def goodput(measured):
    """What is answered well, by what is offered."""
    points = measured["points"]
    most = measured["maximum"]
    offered = max(point["offered"] for point in points)
    lines = [
        ("answered OK", [(point["offered"], point["goodput"]) for point in points], COLOURS[0], ""),
        ("offered", [(0, 0), (most, most)], COLOURS[5], "2 4"),
        ("the maximum of a closed loop", [(0, most), (offered, most)], COLOURS[1], "5 4"),
    ]
    return plot("Goodput by offered load", "new calls a second, offered", "calls a second", lines)


def plot(title, x_name, y_name, lines, logarithmic=False):
    everything = [point for _, points, _, _ in lines for point in points]
    most_x = max(x for x, _ in everything)
    most_y = max(y for _, y in everything)
    least_y = min(y for _, y in everything if y > 0) if logarithmic else 0
    if logarithmic:
        shown = decades(least_y, most_y)
        least_y, most_y = shown[0], shown[-1]
    else:
        most_y *= 1.1
    legend = 16 * len(lines)

    def place(x, y):
        if logarithmic:
            share = math.log(max(y, least_y) / least_y) / math.log(most_y / least_y)
        else:
            share = y / most_y
        return (LEFT + x / most_x * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM))

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + legend}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT + legend}" fill="#ffffff"/>',
        text(WIDTH / 2, 24, title, "middle", size=16),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_name, "middle"),
        f'<g transform="rotate(-90 16 {HEIGHT / 2})">{text(16, HEIGHT / 2, y_name, "middle")}</g>',
    ]
    for x in steps(most_x):
        across, down = place(x, least_y)
        out += [rule(across, down, across, TOP), text(across, down + 16, number(x), "middle")]
    for y in decades(least_y, most_y) if logarithmic else steps(most_y):
        across, down = place(0, y)
        out += [rule(across, down, WIDTH - RIGHT, down),
                text(across - 6, down + 4, number(y), "end")]
    for index, (name, points, colour, dash) in enumerate(lines):
        places = [place(*one) for one in points]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash or "none"}"'
        down = HEIGHT + 16 * index
        out += [f'<polyline points="{path}" {style}/>',
                f'<line x1="{LEFT}" y1="{down}" x2="{LEFT + 30}" y2="{down}" {style}/>',
                text(LEFT + 38, down + 4, name, "start")]
    return "\n".join([*out, "</svg>", ""])


def steps(most):
    """Round figures from 0 to `most`, five or so of them."""
    size = 10 ** math.floor(math.log10(most / 4))
    size *= next(factor for factor in (1, 2, 5, 10) if most / (size * factor) <= 6)
    return [size * count for count in range(int(most / size) + 1)]


def decades(least, most):
    """The powers of ten around what lies between."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(first, last + 1)]


def number(value):
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:g}"


def rule(x1, y1, x2, y2):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
            ' stroke="#d0d7de" stroke-width="1"/>')


def text(x, y, content, anchor, size=12):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
            f' fill="#24292f">{escape(content)}</text>')
