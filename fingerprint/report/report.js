"use strict";
// With this script a pair can be compared in place (slide the real slice over the generated one, or
// let the two alternate), the list of findings follows a rate q that the reader chooses, and the card
// can be copied. Without it the page shows everything side by side, at the q of the run.
for (const pair of document.querySelectorAll(".pair")) {
  // the one that was brought closest to the slice
  const closest = ["elastic", "affine", "moved", "generated"].map((name) => pair.querySelector("img." + name));
  const generated = closest.find((image) => image);
  const real = pair.querySelector("img.real");
  if (!generated || !real) continue;

  const over = document.createElement("img");
  over.src = real.src;
  over.alt = "";
  over.className = "over";
  generated.parentElement.classList.add("stack");
  generated.after(over);

  const number = pair.querySelector("h3").firstChild.textContent.trim();
  const slider = document.createElement("input");
  slider.type = "range";
  slider.min = 0;
  slider.max = 100;
  slider.value = 0;
  slider.setAttribute("aria-label", "Show the real slice over the generated image, pair " + number);
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Alternate";
  button.setAttribute("aria-pressed", "false");
  const label = document.createElement("label");
  label.append("generated ", slider, " real");
  const bar = document.createElement("div");
  bar.className = "compare";
  bar.append(label, button);
  pair.append(bar);

  const show = (share) => { over.style.clipPath = "inset(0 " + (100 - share) + "% 0 0)"; };
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.setAttribute("aria-pressed", "false");
    show(slider.value);
  };
  slider.addEventListener("input", stop);
  button.addEventListener("click", () => {
    if (timer) return stop();
    let on = false;
    button.setAttribute("aria-pressed", "true");
    timer = setInterval(() => { on = !on; show(on ? 100 : 0); }, 700);
  });
  show(0);
}

// The images that are findings at another rate q: the same rule as in Python, on the p of the page.
// p_(k) <= q k / M, q divided by the factor of Benjamini-Yekutieli where that was used.
for (const explorer of document.querySelectorAll(".explorer")) {
  const data = JSON.parse(explorer.querySelector('script[type="application/json"]').textContent);
  const rejected = (list, q) => {
    const order = list.p.map((p, i) => i).filter((i) => list.p[i] !== null);
    order.sort((a, b) => list.p[a] - list.p[b] || a - b);
    let last = 0;
    order.forEach((i, at) => { if (list.p[i] <= (q / list.factor) * (at + 1) / list.tests) last = at + 1; });
    return new Set(order.slice(0, last));
  };
  const rows = [...explorer.querySelectorAll("tbody tr")];
  const write = (place, text) => { if (place.textContent.trim() !== text) place.textContent = text; };
  const names = { identical: "identical", guaranteed: "guaranteed", tail: "tail model" };

  const at = (q) => {
    const guaranteed = rejected(data.lists.guaranteed, q);
    const tail = rejected(data.lists.tail, q);
    const first = data.same.map((same, i) =>
      same ? "identical" : guaranteed.has(i) ? "guaranteed" : tail.has(i) ? "tail" : "");
    const count = {
      identical: data.same.filter(Boolean).length, guaranteed: guaranteed.size, tail: tail.size,
      any: first.filter(Boolean).length,
    };
    for (const place of explorer.querySelectorAll("[data-list]")) {
      if (place.querySelector(".missing")) continue; // that list was not run
      write(place, count[place.dataset.list].toLocaleString("en"));
    }
    let more = data.next;
    rows.forEach((row, i) => {
      const list = first[i];
      row.hidden = !list && more-- <= 0;
      row.classList.toggle("is-found", Boolean(list));
      write(row.lastElementChild, list ? names[list] : "\u2013");
    });
  };

  const slider = document.createElement("input");
  slider.type = "range";
  slider.min = 0;
  slider.max = data.q.length - 1;
  slider.step = 1;
  slider.value = data.start;
  slider.setAttribute("aria-label", "False-discovery rate q");
  const shown = explorer.querySelector(".rate b");
  const move = () => {
    const q = data.q[slider.value];
    write(shown, String(q));
    slider.setAttribute("aria-valuetext", String(q));
    at(q);
  };
  slider.addEventListener("input", move);
  const bar = document.createElement("label");
  bar.className = "slide";
  bar.append(data.q[0] + " ", slider, " " + data.q[data.q.length - 1]);
  explorer.querySelector(".ask").append(bar);
  move();
}

for (const card of document.querySelectorAll(".card")) {
  const text = card.querySelector("pre");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  const said = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
  const select = () => { // without access to the clipboard: mark it, to be copied by hand
    const range = document.createRange();
    range.selectNodeContents(text);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    if (document.execCommand("copy")) said();
  };
  button.addEventListener("click", () => {
    if (navigator.clipboard) navigator.clipboard.writeText(text.textContent).then(said, select);
    else select();
  });
  card.append(button);
}
