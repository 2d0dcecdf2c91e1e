"use strict";
// With this script a pair can be compared in place: slide the real slice over the generated one,
// or let the two alternate. Without it the page shows everything side by side.
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
