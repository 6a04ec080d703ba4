// Filters and pages the transcripts. Model text is only ever set as the text of a node, never parsed as HTML.
"use strict";
(() => {
  const PAGE = 10;
  const VERDICTS = ["right", "wrong", "retracted"];
  const MARKS = { right: "✓", wrong: "✗", retracted: "↶" };
  const data = JSON.parse(document.getElementById("transcripts").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("problems");
  const count = document.getElementById("count");
  const field = form.elements;
  let page = 0;

  function make(tag, name, text) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function filled(element, ...children) {
    element.append(...children); // strings become text nodes
    return element;
  }

  function number(value) {
    return value.toLocaleString("en-US");
  }

  function marked(verdict, name) {
    const mark = make("span", "mark", MARKS[verdict]);
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", verdict);
    return filled(make("div", name), mark);
  }

  function step(packed) {
    if (packed === "wait") return filled(make("div", "wait"), make("span", "mark"), "wait");
    const [code, text, reason] = typeof packed === "string" ? [0, packed, ""] : packed;
    const line = filled(marked(VERDICTS[code], VERDICTS[code]), make("bdi", "", text));
    const back = VERDICTS[code] === "retracted" ? "taken back" : "";
    if (back || reason) line.append(" ", make("i", "", [back, reason].filter(Boolean).join(": ")));
    return line;
  }

  function chain(title, [correct, voice, tokens, answer, body, leftOut]) {
    const text = make("div", "text");
    const note = (words) => filled(make("div"), make("i", "", words));
    if (typeof body === "string") {
      text.append(note("not well-formed, shown as it came:"), filled(make("div"), make("bdi", "", body)));
    } else {
      text.append(...(body.length ? body.map(step) : [note("no steps: answered at once")]));
    }
    if (leftOut) text.append(note(`… ${number(leftOut)} more characters in samples.jsonl`));
    const verdict = correct ? "right" : "wrong";
    const last = marked(verdict, `answer ${verdict}`);
    if (answer === null) last.append("no answer");
    else last.append("answer ", make("bdi", "", answer));
    text.append(last);
    const head = filled(make("h4", "", `${title} `), make("small", "", `· ${data.voices[voice]} · ${tokens} tokens`));
    return filled(make("section", "chain"), head, text);
  }

  function article(place) {
    const [question, answer, family, axis, depth, chains] = data.problems[place];
    const where = data.axes[axis] === null ? "" : `, ${data.axes[axis]}`;
    const steps = depth === 0 ? "" : `, ${depth} operation${depth === 1 ? "" : "s"}`;
    const about = `· ${data.families[family]}${steps}${where} · problem ${place + 1}`;
    const head = filled(make("h3"), make("bdi", "", `${question} = ${answer}`), " ", make("span", "", about));
    const side = filled(make("div", "side"), ...chains.map((made, column) => chain(data.columns[column], made)));
    return filled(make("article", "problem"), head, side);
  }

  function matches([question, , family, axis, depth, chains]) {
    if (field.family.value && Number(field.family.value) !== family) return false;
    if (field.depth.value && Number(field.depth.value) !== depth) return false;
    if (field.axis.value && Number(field.axis.value) !== axis) return false;
    if (field.answer.value && Number(field.answer.value) !== chains[Number(field.column.value)][0]) return false;
    if (!question.toLowerCase().includes(field.text.value.trim().toLowerCase())) return false;
    if (!field.changed.value) return true;
    const [before, after] = data.changed.map((column) => chains[column][0]);
    return before !== after && (field.changed.value === "both" || (field.changed.value === "gained") === (after === 1));
  }

  function selected() {
    if (field.show.value === "fixed") return data.fixed;
    return data.problems.map((_, place) => place).filter((place) => matches(data.problems[place]));
  }

  function show() {
    const places = selected();
    const last = Math.max(0, Math.ceil(places.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    const shown = places.slice(page * PAGE, (page + 1) * PAGE);
    list.replaceChildren(...shown.map(article));
    const range = shown.length ? `, ${number(page * PAGE + 1)} to ${number(page * PAGE + shown.length)} shown` : "";
    count.textContent = `${number(places.length)} of ${number(data.problems.length)} problems${range}`;
    for (const button of document.querySelectorAll(".previous")) button.disabled = page === 0;
    for (const button of document.querySelectorAll(".next")) button.disabled = page === last;
  }

  function turn(pages) {
    page += pages;
    show();
    const top = document.getElementById("browser");
    if (top.getBoundingClientRect().top < 0) form.scrollIntoView();
  }

  function options(select, labels) {
    for (const [value, label] of labels) {
      const option = make("option", "", label);
      option.value = value;
      select.append(option);
    }
    if (select.options.length < 3 && select.name !== "column") select.parentElement.hidden = true; // nothing to choose
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, .scroll")) return;
    const box = list.getBoundingClientRect();
    if (box.bottom < 0 || box.top > window.innerHeight) return;
    if (event.key === "j" || event.key === "ArrowRight") turn(1);
    if (event.key === "k" || event.key === "ArrowLeft") turn(-1);
  }

  const depths = [...new Set(data.problems.map((problem) => problem[4]))].sort((a, b) => a - b);
  options(field.family, data.families.map((name, place) => [place, name]));
  options(field.depth, depths.map((depth) => [depth, depth === 0 ? "not known" : String(depth)]));
  options(field.axis, data.axes.map((name, place) => [place, name === null ? "none: the exam proper" : name]));
  options(field.column, data.columns.map((name, place) => [place, name]));
  if (data.changed === null) field.changed.parentElement.hidden = true;
  else {
    const [before, after] = data.changed.map((column) => data.columns[column]);
    field.changed.parentElement.firstChild.textContent = `changed, ${before} → ${after} `;
    field.column.options[data.changed[1]].defaultSelected = true;
    field.column.value = String(data.changed[1]);
  }
  form.addEventListener("input", (event) => {
    if (event.target !== field.show) field.show.value = "all"; // a filter is asked of all problems
    else if (field.show.value === "fixed") return form.reset(); // and the ten are shown unfiltered
    page = 0;
    show();
  });
  form.addEventListener("reset", () => setTimeout(() => { page = 0; show(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of document.querySelectorAll(".previous")) button.addEventListener("click", () => turn(-1));
  for (const button of document.querySelectorAll(".next")) button.addEventListener("click", () => turn(1));
  document.addEventListener("keydown", key);
  for (const part of [form, ...document.querySelectorAll(".pager"), document.getElementById("keys")]) part.hidden = false;
  show();
})();
