// The list of what was found, and where the time went.

import { colorOf, numberOf } from "./draw.js";

export class Results {
  /** list, count, empty, times: elements. onChange(marked) where a region is left out, taken back or marked. */
  constructor({ list, count, empty, times }, onChange) {
    Object.assign(this, { list, count, empty, times, onChange });
    this.leftOut = new Set();
    this.only = [];
    this.found = null;
  }

  /** Indices of the regions that are neither left out nor of names that are not asked for. */
  get shown() {
    const regions = this.found?.regions ?? [];
    return regions.map((_, i) => i).filter((i) => this.#isAsked(i) && !this.leftOut.has(this.#key(i)));
  }

  /** Shows what was found in a picture; in a new one nothing is left out. */
  show(found, fresh) {
    if (fresh) this.leftOut.clear();
    this.found = found;
    const listed = (found?.regions ?? []).map((_, i) => i).filter((i) => this.#isAsked(i));
    while (this.list.children.length > listed.length) this.list.lastChild.remove();
    while (this.list.children.length < listed.length) this.list.append(this.#row());
    listed.forEach((i, at) => this.#fill(this.list.children[at], i));
    this.count.textContent = listed.length;
    this.empty.hidden = listed.length > 0;
    if (found) this.#showTimes(found.ms);
  }

  #row() {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    for (const part of ["swatch", "label", "score", "share"]) {
      const span = document.createElement("span");
      span.className = part;
      button.append(span);
    }
    button.addEventListener("click", () => {
      const key = this.#key(Number(button.dataset.region));
      if (!this.leftOut.delete(key)) this.leftOut.add(key);
      this.show(this.found, false);
      this.onChange(-1);
    });
    for (const [event, on] of [["pointerenter", true], ["focus", true], ["pointerleave", false], ["blur", false]]) {
      button.addEventListener(event, () => this.onChange(on ? Number(button.dataset.region) : -1));
    }
    row.append(button);
    return row;
  }

  #fill(row, i) {
    const { found } = this;
    const button = row.firstChild, region = found.regions[i];
    const [swatch, label, score, share] = button.children;
    const number = numberOf(found, i);
    const percent = Math.max(1, Math.round((100 * region.area) / (found.width * found.height)));
    button.dataset.region = i;
    button.setAttribute("aria-pressed", String(!this.leftOut.has(this.#key(i))));
    button.setAttribute("aria-label",
      `${number}: ${region.label}, score ${region.score.toFixed(2)}, ${percent} percent of the picture`);
    const color = colorOf(number);
    swatch.style.background = `rgb(${color})`;
    swatch.style.color = color[0] + color[1] + color[2] > 330 ? "#000" : "#fff";
    swatch.textContent = number;
    label.textContent = region.label;
    score.textContent = region.score.toFixed(2);
    share.textContent = `${percent} %`;
  }

  #showTimes(ms) {
    const rows = Object.entries(ms).map(([step, took]) => {
      const row = document.createElement("tr");
      const name = document.createElement("th"), time = document.createElement("td");
      name.scope = "row";
      name.textContent = step;
      time.textContent = `${took.toFixed(1)} ms`;
      row.append(name, time);
      return row;
    });
    this.times.replaceChildren(...rows);
  }

  /** What a region is called while it is left out: its track, which lasts, or its place. */
  #key(i) {
    return this.found.regions[i].track || -i - 1;
  }

  #isAsked(i) {
    return !this.only.length || this.only.includes(this.found.regions[i].label);
  }
}

/** "2 objects: astronaut 0.93, ..." of what is shown. */
export function saidOf(found, shown) {
  if (!shown.length) return found?.regions.length ? "Nothing is shown." : "Nothing was found.";
  const told = shown.slice(0, 4).map((i) => `${found.regions[i].label} ${found.regions[i].score.toFixed(2)}`);
  const rest = shown.length > 4 ? `, and ${shown.length - 4} more` : "";
  return `${shown.length} ${shown.length === 1 ? "object" : "objects"}: ${told.join(", ")}${rest}.`;
}
