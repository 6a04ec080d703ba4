// Filters the transcripts and shows ten more at a time. Model text is only ever set as the text of a node, never parsed as HTML.
"use strict";
(() => {
  const MARKS = { right: "✓", wrong: "✗", retracted: "↶" };
  const data = JSON.parse(document.getElementById("transcripts").textContent);
  const browser = document.getElementById("browser");
  const form = document.getElementById("filters");
  const list = document.getElementById("problems");
  const more = document.getElementById("more");
  const field = form.elements;
  const number = (value) => value.toLocaleString("en-US");
  const distinct = (key) => [...new Set(data.problems.map((problem) => problem[key]))];
  let places = [];

  function make(tag, name, ...children) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children); // strings become text nodes
    return element;
  }

  function marked(verdict, name, ...children) {
    const mark = make("span", "mark", MARKS[verdict]);
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", verdict);
    return make("div", name, mark, ...children);
  }

  function step([text, verdict = "right", reason = ""]) {
    if (text === "wait" && verdict === "right") return make("div", "wait", make("span", "mark"), text);
    const note = [verdict === "retracted" ? "taken back" : "", reason].filter(Boolean).join(": ");
    return marked(verdict, verdict, make("bdi", "", text), ...(note ? [" ", make("i", "", note)] : []));
  }

  function chain(title, { correct, voice, tokens, answer, steps, raw, malformed, left_out }) {
    const text = make("div", "text");
    const note = (words) => make("div", "", make("i", "", words));
    if (raw !== undefined) text.append(note(malformed ? "malformed, as it came:" : "no checker for these steps:"), make("div", "", make("bdi", "", raw)));
    else text.append(...(steps.length ? steps.map(step) : [note("no steps: answered at once")]));
    if (left_out) text.append(note(`… ${number(left_out)} more characters in samples.jsonl`));
    const last = answer === null ? ["no answer"] : ["answer ", make("bdi", "", answer)];
    const verdict = correct ? "right" : "wrong";
    text.append(marked(verdict, `answer ${verdict}`, ...last));
    return make("section", "chain", make("h4", "", `${title} `, make("small", "", `· ${voice} · ${tokens} tokens`)), text);
  }

  function article(place) {
    const { question, answer, family, axis, depth, chains } = data.problems[place];
    const steps = depth === 0 ? "" : `, ${depth} operation${depth === 1 ? "" : "s"}`;
    const about = `· ${family}${steps}${axis === null ? "" : `, ${axis}`} · problem ${place + 1}`;
    const head = make("h3", "", make("bdi", "", `${question} = ${answer}`), " ", make("span", "", about));
    const side = chains.map((one, column) => chain(data.columns[column], one));
    return make("article", "problem", head, make("div", "side", ...side));
  }

  function matches({ question, family, axis, depth, chains }) {
    if (field.family.value && field.family.value !== family) return false;
    if (field.depth.value && Number(field.depth.value) !== depth) return false;
    if (field.axis.value && field.axis.value !== String(axis)) return false;
    if (field.answer.value && field.answer.value !== String(chains[field.column.value].correct)) return false;
    if (!question.toLowerCase().includes(field.text.value.trim().toLowerCase())) return false;
    if (!field.changed.value) return true;
    const [before, after] = data.changed.map((column) => chains[column].correct);
    return before !== after && (field.changed.value === "both" || (field.changed.value === "gained") === after);
  }

  function extend() {
    const start = list.childElementCount;
    list.append(...places.slice(start, start + 10).map(article));
    more.hidden = list.childElementCount === places.length;
    const shown = more.hidden ? "" : `, the first ${number(list.childElementCount)} shown`;
    document.getElementById("count").textContent = `${number(places.length)} of ${number(data.problems.length)} problems${shown}`;
  }

  function show() {
    const all = data.problems.map((_, place) => place);
    places = field.show.value === "fixed" ? data.fixed : all.filter((place) => matches(data.problems[place]));
    list.replaceChildren();
    extend();
  }

  function options(select, labels) {
    for (const [value, label] of labels) select.append(new Option(label, value));
    if (select.options.length < 3 && select.name !== "column") select.parentElement.hidden = true; // nothing to choose
  }

  const depths = distinct("depth").sort((a, b) => a - b);
  options(field.family, distinct("family").map((name) => [name, name]));
  options(field.depth, depths.map((depth) => [depth, depth === 0 ? "not known" : depth]));
  options(field.axis, distinct("axis").map((name) => [name, name === null ? "none: the exam proper" : name]));
  options(field.column, data.columns.map((name, column) => [column, name]));
  field.changed.parentElement.hidden = !data.changed.length;
  if (data.changed.length) {
    const [before, after] = data.changed.map((column) => data.columns[column]);
    field.changed.parentElement.firstChild.textContent = `changed, ${before} → ${after} `;
    field.column.options[data.changed[1]].defaultSelected = true;
    field.column.value = data.changed[1];
  }
  form.addEventListener("input", (event) => {
    if (event.target !== field.show) field.show.value = "all"; // a filter is for all problems
    else if (field.show.value === "fixed") return form.reset(); // the ten are shown without filters
    show();
  });
  form.addEventListener("reset", () => setTimeout(show));
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", extend);
  browser.hidden = false;
  show();
})();
