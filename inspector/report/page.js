// The contents at the side follow the reading; printing opens everything that is folded.
"use strict";
const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
const seen = new Set();
const follow = new IntersectionObserver((entries) => {
  for (const entry of entries) entry.isIntersecting ? seen.add(entry.target.id) : seen.delete(entry.target.id);
  const current = [...links.keys()].find((id) => seen.has(id));
  if (current === undefined) return;
  for (const [id, a] of links) id === current ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current");
}, { rootMargin: "0px 0px -55% 0px" });
for (const id of links.keys()) follow.observe(document.getElementById(id));

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const d of folded) d.open = true;
});
addEventListener("afterprint", () => { for (const d of folded) d.open = false; });

// In a notebook's frame a plain "#id" would load the notebook itself, so links of this page are followed by hand.
for (const a of document.querySelectorAll('a[href^="#"]')) a.addEventListener("click", (event) => {
  const target = document.getElementById(a.hash.slice(1));
  event.preventDefault();
  target.tabIndex = -1;
  target.scrollIntoView();
  target.focus({ preventScroll: true });
});
