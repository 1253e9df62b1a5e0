"""What is around a log in its page, which needs no other file, and fetches nothing from anywhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from kplug import __version__
from kplug.render import map_svg
from kplug.render.html_text import attribute

_STYLE = """
:root{color-scheme:light dark;--ground:#fff;--text:#1f2328;--dim:#59636e;--line:#d1d9e0;--link:#0550ae;--event:#cf222e;
--soft:#f6f8fa;--odd:#8250df}
@media(prefers-color-scheme:dark){:root{--ground:#0d1117;--text:#e6edf3;--dim:#9198a1;--line:#3d444d;--link:#79c0ff;
--event:#ff7b72;--soft:#161b22;--odd:#d2a8ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:0 1rem 4rem;max-width:90rem;background:var(--ground);color:var(--text);
font:15px/1.5 system-ui,sans-serif;display:flex;flex-direction:column}
body>*{min-width:0}#events{order:1}#map{order:2}main{order:3}#notes{order:4}#names{order:5}
h1{font-size:1.3rem;margin:1rem 0 .2rem;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:1.4rem 0 .5rem;
overflow-wrap:anywhere}a{color:var(--link)}:focus-visible{outline:2px solid var(--link);outline-offset:1px}
header nav a{margin-right:1rem}#fold{margin:.5rem 0 0}button{font:inherit;margin-right:.5rem}
.log,pre,h3,code{font:13px/1.5 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.log{white-space:pre-wrap;overflow-wrap:anywhere;tab-size:8;direction:ltr;unicode-bidi:bidi-override;
border:1px solid var(--line);border-radius:6px;padding:.6rem .8rem}
.log a{color:inherit;text-decoration:underline dotted var(--dim);text-underline-offset:3px}
.log a:hover,.log a:focus{color:var(--link);text-decoration-style:solid}
.log i{font-style:normal;color:var(--odd)}
.l{content-visibility:auto;contain-intrinsic-size:auto 4000px}
.e{border-left:3px solid var(--event);padding-left:.5rem;margin-left:-.5rem}
.b[data-t]::before{content:attr(data-t);display:block;font-weight:600;color:var(--event);margin-top:.4rem}
.b:target{background:var(--soft)}
summary{cursor:pointer;list-style:none;position:relative}summary::-webkit-details-marker{display:none}
.log summary::before{content:"▸ " attr(data-n);color:var(--dim);border:1px solid var(--line);border-radius:4px;
padding:0 .4em;font-size:11px;float:right}
.log details[open]>summary::before{content:"▾ " attr(data-n)}
#events ol{padding-left:0;list-style:none;margin:0}#events li{border-top:1px solid var(--line);padding:.35rem 0}
#events a{font-weight:600;overflow-wrap:anywhere}
.kind{display:inline-block;font-size:.8rem;border:1px solid var(--event);color:var(--event);border-radius:4px;
padding:0 .35em;margin-right:.5em}.facts{color:var(--dim);display:block}
#events p{margin:.1rem 0}.cut{color:var(--event)}
#names>details>summary::before{content:"▸ "}
#names>details[open]>summary::before{content:"▾ "}
#names section{border-top:1px solid var(--line);padding:.4rem 0;content-visibility:auto;
contain-intrinsic-size:auto 9rem}
#names section:target{background:var(--soft)}
h3{font-weight:600;margin:0;overflow-wrap:anywhere}section p,#tip p{margin:.1rem 0;overflow-wrap:anywhere}
section pre,#tip pre{margin:.2rem 0 0;white-space:pre-wrap;overflow-wrap:anywhere;color:var(--dim);font-size:12px}
#tip{position:fixed;z-index:9;max-width:min(46rem,calc(100vw - 1rem));max-height:60vh;overflow:auto;padding:.5rem .7rem;
background:var(--soft);border:1px solid var(--dim);border-radius:6px;box-shadow:0 4px 16px #0006}
#notes{color:var(--dim);font-size:.9rem}
[hidden]{display:none!important}
@media(max-width:40rem){body{padding:0 .5rem 3rem}.log{padding:.4rem .5rem;font-size:11.5px}}
@media print{body{display:block;max-width:none;padding:0}#tip,header nav,#fold{display:none}.log{border:0;padding:0;
font-size:9pt}.l,#names section{content-visibility:visible}details::details-content{content-visibility:visible;
block-size:auto}.log a{text-decoration:none}}
"""

_SCRIPT = """
"use strict";
(() => {
  const main = document.querySelector("main"), all = s => document.querySelectorAll(s);
  for (const part of all("#events, #map")) document.body.insertBefore(part, main);
  const fold = document.getElementById("fold"), tip = document.createElement("div");
  tip.id = "tip"; tip.role = "tooltip"; tip.hidden = true;
  document.body.append(tip);
  fold.hidden = false;
  fold.addEventListener("click", e => {
    const open = e.target.dataset.open;
    if (open !== undefined) for (const each of all(".log details")) each.open = open === "1";
  });
  let shown = null, kept = false, timer = 0;
  const linkOf = e => e.target.closest ? e.target.closest('a[href^="#h"]') : null;
  const hide = () => {
    clearTimeout(timer);
    if (shown) shown.removeAttribute("aria-describedby");
    shown = null; kept = false; tip.hidden = true;
  };
  const show = link => {
    clearTimeout(timer);
    if (link === shown) return;
    const entry = document.getElementById(link.getAttribute("href").slice(1));
    if (!entry) return;
    hide();
    tip.replaceChildren(...[...entry.childNodes].map(node => node.cloneNode(true)));
    shown = link; link.setAttribute("aria-describedby", "tip"); tip.hidden = false;
    const at = link.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const below = at.bottom + size.height + 6 < innerHeight || at.top < size.height + 6;
    tip.style.left = Math.max(4, Math.min(at.left, innerWidth - size.width - 8)) + "px";
    tip.style.top = (below ? Math.min(at.bottom + 4, innerHeight - size.height - 4) : at.top - size.height - 4) + "px";
  };
  const later = () => { if (!kept) { clearTimeout(timer); timer = setTimeout(hide, 200); } };
  document.addEventListener("mouseover", e => {
    const link = linkOf(e);
    if (link && !kept) show(link); else if (tip.contains(e.target)) clearTimeout(timer);
  });
  document.addEventListener("mouseout", e => { if (linkOf(e) || tip.contains(e.target)) later(); });
  document.addEventListener("focusin", e => { const link = linkOf(e); if (link) { kept = false; show(link); } });
  document.addEventListener("focusout", e => { if (linkOf(e)) later(); });
  document.addEventListener("click", e => {
    const link = linkOf(e);
    if (!link) { if (!tip.contains(e.target)) hide(); return; }
    e.preventDefault();
    show(link); kept = true;
  });
  document.addEventListener("keydown", e => { if (e.key === "Escape") hide(); });
  document.addEventListener("scroll", () => { if (!tip.matches(":hover")) hide(); }, {passive: true});
  let before = [];
  addEventListener("beforeprint", () => {
    before = [...all(".log details:not([open])")];
    for (const each of before) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of before) each.open = false; });
})();
"""

TABLE = """\
<aside id="names"><details><summary>All that the page explains</summary>
"""
END = f"""\
</details></aside>
<script>{_SCRIPT}</script>
</body></html>
"""


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


# Even if something of a log became markup, it could neither run nor load anything.
_POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)} {_hash(map_svg.STYLE)}; script-src {_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'"
)


def head(name: str) -> str:
    """The page up to its first log, of that name."""
    return f"""\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="kplug {attribute(__version__)}">
<title>{name}</title>
<style>{_STYLE}</style></head>
<body>
<header><h1>Kernel log</h1>
<nav aria-label="Page"><a href="#events">Events</a><a href="#map">Map</a><a href="#log1">Log</a><a href="#names">All
names</a></nav>
<p id="fold" hidden><button type="button" data-open="0">Fold all</button><button type="button"
data-open="1">Unfold all</button></p></header>
<main>
"""


def index(entries: Sequence[str], count: int) -> str:
    """What follows the log: its events, of which there are `count`."""
    further = f"<p>and {count - len(entries)} more</p>" if count > len(entries) else ""
    listed = f"<ol>{''.join(entries)}</ol>{further}" if entries else "<p>There are none in this log.</p>"
    return f'</main>\n<nav id="events" aria-labelledby="events-title"><h2 id="events-title">Events</h2>{listed}</nav>\n'


def index_entry(event: Mapping[str, Any], target: str) -> str:
    """An event, as its `kplug.event/1` object has it."""
    task = " ".join(str(each) for each in (event["comm"], event["pid"]) if each is not None)
    cpu = f"CPU {event['cpu']}" if event["cpu"] is not None else None
    lines = f"lines {event['first_line']}-{event['last_line']}"
    facts = [attribute(fact) for fact in (event["file"], lines, task, cpu, event["release"]) if fact]
    facts.append("complete" if event["complete"] else '<span class="cut">cut off</span>')
    said = (event["sentence"], (event["code"] or {}).get("words"))
    sentence = "".join([f"<p>{attribute(words)}</p>" for words in said if words])
    return (
        f'<li><span class="kind">{attribute(event["type"])}</span><a href="#{target}">{attribute(event["title"])}</a>'
        f'{sentence}<span class="facts">{" · ".join(facts)}</span></li>\n'
    )


def maps(pictures: Sequence[tuple[str, str]]) -> str:
    """The maps, each with its kernel's name."""
    listed = "".join(f"<h3>{attribute(name)}</h3>\n{picture}" for name, picture in pictures)
    none = "<p>There is none: of what the log names, no place is known.</p>"
    return f'<section id="map"><h2>Where the addresses are</h2>\n{listed or none}</section>\n'


def notes(said: Sequence[str]) -> str:
    """What is to be known of the answers."""
    listed = "".join(f"<li>{each}</li>" for each in said)
    return f'<section id="notes"><h2>About this page</h2><ul>{listed}</ul></section>\n'
