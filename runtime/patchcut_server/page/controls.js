// The form of settings, built from what the engine offers.

const WORDS = {
  modes: { foreground: "Objects", parts: "Parts of the objects", scene: "The whole scene" },
  refines: { auto: "Default", none: "As they are", guided: "On edges", bilateral: "On edges, slower" },
};
const WAIT_MS = 200; // until a slider rests

export class Controls {
  /** form: the element. onChange() once settings have changed. */
  constructor(form, onChange) {
    this.form = form;
    this.fields = form.elements;
    let timer = 0;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", ({ target }) => {
      if (!target.name) return;
      this.#showScore();
      clearTimeout(timer);
      timer = setTimeout(onChange, target.type === "range" ? WAIT_MS : 0);
    });
  }

  /** Shows the choices there are, and hides what has none. */
  build(offers) {
    const { head, mode, refine, min_score: score } = this.fields;
    fill(head, offers.heads.map((one) => one.name), offers.head);
    fill(mode, offers.modes, offers.mode, WORDS.modes);
    fill(refine, offers.refines, offers.refine, WORDS.refines);
    score.value = offers.minScore;
    this.#showScore();
    const lacking = {
      heads: offers.heads.length < 2,
      modes: offers.modes.length < 2,
      refines: offers.refines.length < 2,
      prompts: !offers.prompts,
      concepts: !offers.concepts,
    };
    for (const element of document.querySelectorAll("[data-needs]")) element.hidden = lacking[element.dataset.needs];
  }

  /** What is chosen now. */
  get settings() {
    const { head, mode, refine, min_score: score, unsure } = this.fields;
    return {
      head: head.value,
      mode: mode.disabled ? "foreground" : mode.value,
      refine: refine.value,
      minScore: Number(score.value),
      unsure: unsure.checked,
    };
  }

  /** Chooses another head, as if somebody had. */
  chooseHead(name) {
    this.fields.head.value = name;
  }

  #showScore() {
    this.fields.min_score_value.value = Number(this.fields.min_score.value).toFixed(2);
  }
}

function fill(select, values, chosen, words = {}) {
  select.replaceChildren(...values.map((value) => new Option(words[value] ?? value, value, value === chosen, value === chosen)));
}
