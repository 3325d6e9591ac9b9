"""A history as a picture: commits and POSTs at their offsets over time, faults as bands, owners as lines below.

One panel a partition.
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # no screen is needed, nor there

from matplotlib import pyplot as plt

from tests.chaos.history import History

COLOURS = {"SIGKILL": "tab:red", "killed at a moment": "tab:red", "SIGSTOP": "tab:purple"}


def draw(history: History, path: Path) -> None:
    """Write an SVG of *history* to *path*."""
    places = {one.id: one.place for one in history.produced if one.id}
    partitions = sorted({one.place[1] for one in history.produced})
    first = min((post.at_ms for post in history.posts), default=0)
    last = max((post.at_ms for post in history.posts), default=0)
    figure, panels = plt.subplots(len(partitions), 1, figsize=(14, 3 * len(partitions)), sharex=True, squeeze=False)
    for number, (panel,) in zip(partitions, panels, strict=True):
        for fault in history.faults:
            panel.axvspan((fault.at_ms - first) / 1000, (max(fault.until_ms, fault.at_ms + 50) - first) / 1000,
                          alpha=0.2, color=COLOURS.get(fault.kind, "tab:orange"))  # fmt: skip
            if number == partitions[0]:
                panel.text((fault.at_ms - first) / 1000, 1.02, fault.kind, rotation=30, fontsize=7,
                           transform=panel.get_xaxis_transform())  # fmt: skip
        seen: set[str] = set()
        marks: dict[str, list[tuple[float, int]]] = {"accepted": [], "refused": [], "again": []}
        for post in history.posts:
            place = places.get(post.id)
            if place is not None and place[1] == number:
                kind = "refused" if not post.accepted else "again" if post.id in seen else "accepted"
                marks[kind].append(((post.at_ms - first) / 1000, place[2]))
                if post.accepted:
                    seen.add(post.id)
        for (kind, points), colour in zip(marks.items(), ("tab:green", "tab:gray", "black"), strict=True):
            panel.plot(*zip(*points, strict=True) if points else ([], []), ".", ms=4 if kind == "again" else 2,
                       color=colour, label=f"POST {kind}")  # fmt: skip
        commits = [one for one in history.commits if (one.topic, one.partition) == (history.source, number)]
        panel.step([(one.at_ms - first) / 1000 for one in commits], [one.offset for one in commits], where="post",
                   color="tab:blue", label="commit")  # fmt: skip
        for row, spell in enumerate(history.spells()[history.source, number]):
            at = panel.get_xaxis_transform(), (spell.at_ms - first) / 1000
            panel.hlines(-0.06 - 0.03 * (row % 3), at[1], (min(spell.until_ms, last) - first) / 1000, transform=at[0],
                         clip_on=False, color=f"C{int(spell.who.rpartition('-')[2]) % 10}", lw=2)  # fmt: skip
            panel.text(at[1], -0.06 - 0.03 * (row % 3), spell.who, transform=at[0], fontsize=6)
        panel.set_ylabel(f"offset, partition {number}")
    panels[0][0].legend(loc="lower right", fontsize=7)
    panels[-1][0].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
