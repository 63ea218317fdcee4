"use strict";
// Sorts tables by the buttons in their headings (ascending, descending, as it was), and filters what a form is for.
const texts = new Intl.Collator("en", { numeric: true });
const valueOf = (cell) => ("v" in cell.dataset ? Number(cell.dataset.v) : cell.textContent.trim());
const absent = (cell) => !("v" in cell.dataset) && cell.classList.contains("number");
const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : texts.compare(String(a), String(b)));

for (const table of document.querySelectorAll("table")) {
  const bodies = [...table.tBodies].map((body) => [body, [...body.rows]]);
  const rows = bodies.flatMap(([, own]) => own);
  for (const button of table.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const th = button.closest("th"), column = th.cellIndex, was = th.getAttribute("aria-sort");
      for (const other of th.parentElement.cells) other.removeAttribute("aria-sort");
      if (was === "descending") return bodies.forEach(([body, own]) => body.append(...own));
      th.setAttribute("aria-sort", was ? "descending" : "ascending");
      const sign = was ? -1 : 1;
      const sorted = [...rows].sort((one, other) => {
        const a = one.cells[column], b = other.cells[column];
        return absent(a) - absent(b) || sign * compare(valueOf(a), valueOf(b));
      });
      bodies[0][0].append(...sorted);
    });
  }
}

for (const form of document.querySelectorAll("form.filter")) {
  const items = [...document.getElementById(form.dataset.for).children];
  const apply = () => {
    const typed = form.elements.words.value.toLowerCase().match(/"[^"]*"?|[^\s"]+/g) ?? [];
    const wanted = typed.map((word) => word.replaceAll('"', "").trim()).filter(Boolean);
    const kind = form.elements.kind.value;
    let count = 0;
    for (const item of items) {
      const said = item.dataset.words.toLowerCase();
      item.hidden = !(wanted.every((word) => said.includes(word)) && (!kind || item.dataset.kind === kind));
      count += !item.hidden;
    }
    form.elements.count.value = `${count} of ${items.length}`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply(); // a browser may have kept what was typed
}
