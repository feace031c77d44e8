// Things with names: those that are known, which of them are shown, and new ones.

const at = (id) => document.getElementById(id);

export class ConceptPanel {
  /** image(): the picture that is shown; what is called when something has changed. */
  constructor(engine, { image, onTaught, onForgotten, onOnly, onProblem, say }) {
    Object.assign(this, { engine, image, onTaught, onForgotten, onProblem, say });
    this.box = null;
    at("add-concept").addEventListener("click", () => this.#add());
    at("concept").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.#add();
    });
    at("only").addEventListener("input", ({ target }) => {
      onOnly(target.value.split(",").map((name) => name.trim()).filter(Boolean));
    });
  }

  /** Shows the panel where the head has names, or something can be named. */
  show(offers, head) {
    this.offers = offers;
    this.head = head;
    const named = offers.heads.find((one) => one.name === head)?.named;
    at("concepts").hidden = !named && !this.naming;
    at("only").closest(".field").hidden = !named;
    this.#list();
  }

  use(tool) {
    this.naming = tool === "name";
    this.box = null;
    if (this.offers) this.show(this.offers, this.head);
  }

  async #add() {
    const name = at("concept").value.trim();
    if (!this.image()) return this.onProblem(new Error("Open a picture that shows it first."));
    if (!name) return at("concept").focus();
    try {
      this.offers.concepts = await this.engine.teach(this.image(), name, this.box);
      at("concept").value = "";
      this.box = null;
      this.say(`${name} is known now.`);
      this.onTaught();
    } catch (error) {
      this.onProblem(error);
    }
    return undefined;
  }

  #list() {
    const names = this.offers.concepts ?? [];
    at("concept-names").replaceChildren(...names.map((name) => {
      const row = document.createElement("li"), button = document.createElement("button");
      row.textContent = name;
      button.type = "button";
      button.textContent = "×";
      button.setAttribute("aria-label", `Forget ${name}`);
      button.addEventListener("click", async () => {
        try {
          this.offers.concepts = await this.engine.forget(name);
          this.#list();
          this.onForgotten();
        } catch (error) {
          this.onProblem(error);
        }
      });
      row.append(button);
      return row;
    }));
  }
}
