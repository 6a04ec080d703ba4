  // Kept completions by problem and step. It stands inside the function of browser.js, and uses its make, marked, step and number.
  {
    const stages = JSON.parse(document.getElementById("kept").textContent);
    const form = document.getElementById("rollouts");
    const field = form.elements;
    const strip = document.getElementById("steps");
    let rows = []; // all completions of the chosen problem

    function card({ step: at, sample, voice, tokens, truncated, correct, answer, reward, text }) {
      const note = (words) => make("div", "", make("i", "", words));
      const body = make("div", "text");
      if (voice === "none") body.append(note("malformed, as it came:"));
      else if (!text.length) body.append(note("no steps: answered at once"));
      else if (typeof text[0] === "string") body.append(note("no checker for these steps:"));
      for (const part of text) {
        if (typeof part === "number") body.append(note(`… ${number(part)} more characters in rollouts.jsonl …`));
        else body.append(typeof part === "string" ? make("div", "", make("bdi", "", part)) : step(part));
      }
      const verdict = correct ? "right" : "wrong";
      const last = answer === null ? ["no answer"] : ["answer ", make("bdi", "", answer)];
      body.append(marked(verdict, `answer ${verdict}`, ...last), note(`reward ${reward}`));
      const about = make("small", "", `${voice} · ${number(tokens)} tokens${truncated ? ", truncated" : ""}`);
      return make("section", "chain", make("h4", "", `step ${number(at)}, completion ${sample + 1} `, about), body);
    }

    function choice(at) {
      const marks = rows.filter((row) => row.step === at).map(({ correct }) => make(correct ? "b" : "i", "", MARKS[correct ? "right" : "wrong"]));
      const input = make("input");
      Object.assign(input, { type: "radio", name: "step", value: at, checked: at === rows[0].step });
      input.setAttribute("aria-label", `step ${at}: ${rows.filter((row) => row.step === at && row.correct).length} of ${marks.length} right`);
      return make("label", "", input, number(at), make("span", "", ...marks));
    }

    function problem() {
      const { asked, about, rows: columns } = stages[field.stage.value].problems[field.problem.value];
      const at = field.step?.value;
      const record = (_, place) => Object.fromEntries(Object.entries(columns).map(([key, [values, which]]) => [key, values[which[place]]]));
      rows = columns.step[1].map(record);
      document.getElementById("asked").replaceChildren(make("bdi", "", asked), " ", make("span", "", `· ${about}`));
      strip.replaceChildren(strip.firstElementChild, ...columns.step[0].map(choice));
      for (const radio of strip.querySelectorAll("input")) radio.checked ||= radio.value === at; // the step stays
    }

    function stage() {
      const { problems } = stages[field.stage.value];
      const [samples] = problems[0].rows.sample;
      field.problem.replaceChildren(...problems.map(({ asked }, place) => new Option(asked.slice(0, 80), place)));
      field.sample.replaceChildren(new Option("one step, all completions", ""), ...samples.map((sample) => new Option(`every step, completion ${sample + 1}`, sample)));
      problem();
    }

    function show() {
      const sample = field.sample.value;
      const shown = rows.filter((row) => String(sample ? row.sample : row.step) === (sample || field.step.value));
      strip.hidden = sample !== "";
      for (const line of document.querySelectorAll('[id*="-at-"]')) line.style.display = !sample && line.id.endsWith(`-at-${field.step.value}`) ? "inline" : "";
      document.getElementById("completions").replaceChildren(...shown.map(card));
    }

    field.stage.append(...stages.map((each, place) => new Option(each.stage, place)));
    field.stage.parentElement.hidden = stages.length < 2;
    form.addEventListener("input", ({ target }) => {
      if (target === field.stage) stage();
      if (target === field.problem) problem();
      show();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    stage();
    show();
  }
