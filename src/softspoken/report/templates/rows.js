// The table of every row: data lies beside it as JSON, and no more than a page of it is ever drawn.
const table = JSON.parse(document.getElementById("rows-data").textContent), PAGE = 25, LONGEST_DIFF = 400;
const at = id => document.getElementById(id), rowsBody = at("every-row").tBodies[0];
const make = (name, words, kind) => Object.assign(document.createElement(name), words === undefined ? {} : {textContent: words}, kind ? {className: kind} : {});
const written = (value, form, sign) => {
  if (value === null || value === undefined) return "–";
  const [factor, digits, unit] = {points: [1, 1, ""], share: [100, 1, sign ? "\u00a0pp" : "\u00a0%"]}[form] || [1, 3, ""];
  const number = Math.abs(value * factor).toFixed(digits), mark = value < 0 ? "−" : sign && value > 0 ? "+" : "";
  return (Number(number) ? mark : "") + number + unit;
};
const figure = (row, system, metric) => row[4 + system] ? row[4 + system][2][metric] : null;
const change = (row, metric) => {
  const [a, b] = [figure(row, 0, metric), figure(row, 1, metric)];
  return typeof a === "number" && typeof b === "number" ? b - a : null;
};

// What can be sorted by: of each metric the change and both values, either way round.
const orders = [["in the order of the data", null, 0]];
table.metrics.forEach((metric, m) => {
  if (!table.rows.some(row => table.systems.some((_, s) => figure(row, s, m) !== null))) return;
  const values = table.systems.map((name, s) => [`${metric.label} of ${name}`, row => figure(row, s, m)]);
  if (table.systems.length > 1) values.unshift([`change in ${metric.label}`, row => change(row, m)]);
  values.forEach(([label, value]) => orders.push([`${label}, highest first`, value, -1], [`${label}, lowest first`, value, 1]));
});
orders.forEach(([label], place) => at("order").add(new Option(label, place)));
Object.entries(table.parts).forEach(([part, label]) => at("part").add(new Option(label, part)));
at("part").parentElement.hidden = !Object.keys(table.parts).length;
const metrics = table.metrics.map((metric, m) => ({...metric, m})).filter(({m}) => table.rows.some(row => table.systems.some((_, s) => typeof figure(row, s, m) === "number")));

const head = at("every-row").tHead.insertRow();
for (const label of ["id", table.words[0], ...table.systems, ...metrics.map(metric => metric.label)]) head.append(Object.assign(make("th", label), {scope: "col"}));

let shown = [], page = 0;
const haystack = new Map();
const words = row => {
  if (!haystack.has(row)) haystack.set(row, [row[0], row[2], ...row.slice(4).map(one => one ? one[0] : "")].join("\n").toLowerCase());
  return haystack.get(row);
};
function select() {
  const wanted = at("search").value.toLowerCase().split(/\s+/).filter(Boolean), part = at("part").value;
  shown = table.rows.filter(row => (!part || row[1].includes(part)) && wanted.every(word => words(row).includes(word)));
  const [, value, way] = orders[at("order").value];
  if (value) {  // what has no figure comes last, whichever way
    const known = new Map(shown.map(row => [row, value(row)]));
    const last = row => typeof known.get(row) !== "number";
    shown.sort((a, b) => last(a) - last(b) || (last(a) ? 0 : way * (known.get(a) - known.get(b))));
  }
  page = 0;
  draw();
}

// The longest run of words that both have, in their order; the others are what was taken out or put in.
function different(before, after) {
  const [a, b] = [before, after].map(text => text.match(/\S+\s*|^\s+/g) || []), same = (i, j) => a[i].trim() === b[j].trim();
  if (a.length > LONGEST_DIFF || b.length > LONGEST_DIFF) return [[[before, false]], [[after, false]]];
  const most = Array.from({length: a.length + 1}, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) most[i][j] = same(i, j) ? 1 + most[i + 1][j + 1] : Math.max(most[i + 1][j], most[i][j + 1]);
  const marked = [[], []];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && same(i, j)) { marked[0].push([a[i++], false]); marked[1].push([b[j++], false]); }
    else if (j >= b.length || (i < a.length && most[i + 1][j] >= most[i][j + 1])) marked[0].push([a[i++], true]);
    else marked[1].push([b[j++], true]);
  }
  return marked;
}
function joined(pieces) {  // neighbours that are marked alike are one mark
  const found = [];
  for (const [words, alone] of pieces) found.length && found.at(-1)[1] === alone ? (found.at(-1)[0] += words) : found.push([words, alone]);
  return found;
}
function textCell(pieces, mark, blurred, label) {
  const cell = make("td", undefined, "words"), text = make("span", undefined, "text");
  for (let [words, alone] of joined(pieces)) {
    const end = words.trimEnd().length;
    text.append(...(alone ? [make(mark, words.slice(0, end)), words.slice(end)] : [words]));
  }
  if (!text.textContent) text.textContent = "(empty)";
  if (blurred) {
    const button = Object.assign(make("button", undefined, "hidden-text"), {type: "button"});
    button.append(make("span", label, "show"), text);
    button.addEventListener("click", () => toggle(button));
    show(button, document.querySelector(".all-texts")?.getAttribute("aria-pressed") === "true");
    cell.append(button);
  } else cell.append(text);
  return cell;
}
function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / PAGE)), number = value => value.toLocaleString("en");
  rowsBody.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(row => {
    const line = make("tr"), name = Object.assign(make("th", row[0]), {scope: "row"});
    const responses = table.systems.map((_, s) => row[4 + s] ? row[4 + s][0] : "");
    const pieces = responses.length > 1 ? different(...responses) : responses.map(one => [[one, false]]);
    line.append(name, textCell([[row[2], false]], "span", row[3], "Show"), ...table.systems.map((_, s) => textCell(pieces[s], s ? "ins" : "del", row[4 + s]?.[1], "Show")));
    for (const {m, form, better} of metrics) {
      const cell = make("td"), moved = change(row, m);
      cell.append(make("b", table.systems.map((_, s) => written(figure(row, s, m), form)).join(" → ")));
      if (moved !== null) {
        const said = written(moved, form, true), seen = /^[+−]/.test(said) && better;
        cell.append(make("small", said, !seen ? "" : (moved < 0) === (better === "lower") ? "better" : "worse"));
      }
      line.append(cell);
    }
    return line;
  }));
  at("found").textContent = `${number(shown.length)} of ${number(table.rows.length)} ${table.words[1]}`;
  at("page").textContent = `${number(page + 1)} of ${number(pages)}`;
  at("before").disabled = page === 0;
  at("after").disabled = page >= pages - 1;
}

// A cell that begins like a formula would be one to a spreadsheet.
const cell = value => {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
function asCsv() {
  const names = ["id", table.words[0], ...table.systems, ...metrics.flatMap(metric => table.systems.map(name => `${metric.key} of ${name}`))];
  const lines = shown.map(row => [row[0], row[2], ...table.systems.map((_, s) => row[4 + s] ? row[4 + s][0] : null), ...metrics.flatMap(({m}) => table.systems.map((_, s) => figure(row, s, m)))]);
  return "\ufeff" + [names, ...lines].map(line => line.map(cell).join(",")).join("\r\n") + "\r\n";
}
at("csv").addEventListener("click", () => {
  const link = Object.assign(make("a"), {href: URL.createObjectURL(new Blob([asCsv()], {type: "text/csv"})), download: "rows.csv"});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
let waiting;
at("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(select, 120); });
at("controls").addEventListener("submit", event => { event.preventDefault(); select(); });
for (const id of ["part", "order"]) at(id).addEventListener("change", select);
at("before").addEventListener("click", () => { page--; draw(); });
at("after").addEventListener("click", () => { page++; draw(); });
select();
