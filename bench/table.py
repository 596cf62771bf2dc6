"""The figures of a run as a table: ours, theirs, the ratio (above 1 is better for us) and the target."""

from typing import Any

from rich.table import Table


def table(facts: dict[str, Any]) -> Table:
    """Draw a run."""
    title = f"{facts['passages']} passages of {facts['source']} in {facts['documents']} documents"
    made = Table(title=title, show_edge=False)
    for name in ("what", "Domicile", "llama-index", "ratio", "target"):
        made.add_column(name, justify="left" if name == "what" else "right", no_wrap=name != "Domicile")
    our, plain, idle = facts["our"], facts["plain"], facts["idle"]

    def pair(what: str, mine: float, theirs: float, form: str, *, more_is_better: bool, target: str = "") -> None:
        ratio = mine / theirs if more_is_better else theirs / mine
        made.add_row(what, format(mine, form), format(theirs, form), f"{ratio:.2f} ×", target)

    def row(what: str, mine: str, theirs: str = "", target: str = "") -> None:
        made.add_row(what, mine, theirs, "", target)

    pair(
        "ingest, passages/s", our["passages_per_s"], plain["passages_per_s"], ".1f", more_is_better=True, target="≥ 1 ×"
    )
    row("  pieces indexed", str(our["pieces"]), str(plain["pieces"]))
    for name in ("p10", "p50", "p95"):
        mine, theirs = our["query"][f"{name}_ms"], plain["query"][f"{name}_ms"]
        pair(f"search {name}, ms", mine, theirs, ".2f", more_is_better=False, target="" if name == "p10" else "≥ 1 ×")
    for name, label in (
        ("rows", "look rows up"), ("decide", "rule"), ("embed", "embed, open search keys"),
        ("shards", "blind, ask the shard"), ("open", "open keys and passages"), ("ledger", "record"),
    ):  # fmt: skip
        row(f"  {label}, ms", f"{our['parts'][name]['p50_ms']:.2f}")
    row("residency's share of a search", f"{facts['residency']['share']:.1%}", target="≤ 10 %")
    row("memory of the process, MB", f"{our['memory']['rss_mb']:.0f}", f"{plain['memory']['rss_mb']:.0f}")
    row("serve, idle with its children, RSS, MB", f"{idle['idle']['rss_mb']:.0f}", target="< 900")
    row("  pages that are shared counted once", f"{idle['idle']['pss_mb']:.0f}")
    row("  before any document, RSS", f"{idle['fresh']['rss_mb']:.0f}")
    row("domicile --help, s (best of 5)", f"{facts['help_s']:.2f}", target="< 0.4")
    mine, theirs = our["quality"], plain["quality"]
    for name in ("hit@1", "hit@5", "mrr@10"):
        pair(f"examples: {name}", mine[name], theirs[name], ".3f", more_is_better=True)
    row("examples: questions within reach", str(mine["questions"]))
    row("examples: answered with the right quote", f"{mine['answered_right']:.3f}")
    row("examples: abstained though answerable", f"{mine['abstained_wrongly']:.3f}")
    row("examples: abstained where unanswerable", mine["abstained_rightly"], "never")
    row("examples: abstained where held back", mine["held_back"])
    row("examples: quotes exact to the character", f"{mine['exact_quotes']:.3f}", target="1")
    return made
