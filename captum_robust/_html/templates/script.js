"use strict";

// Tables are sorted by clicking a header: numbers by value, texts by letter, missing values last.
function key(row, column) {
  const cell = row.cells[column];
  const given = cell.dataset.key;
  return given === "" ? cell.textContent.trim() : given === "nan" ? NaN : Number(given);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sort(table, column) {
  const headers = Array.from(table.tHead.rows[0].cells);
  const body = table.tBodies[0];
  const descending = headers[column].getAttribute("aria-sort") === "ascending";
  const rows = Array.from(body.rows).map((row) => [key(row, column), row]);
  rows.sort(([a], [b]) => {
    const last = Number(Number.isNaN(a)) - Number(Number.isNaN(b));
    return last || (descending ? compare(b, a) : compare(a, b));
  });
  rows.forEach(([, row]) => body.append(row));
  headers.forEach((header) => header.setAttribute("aria-sort", "none"));
  headers[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}

document.querySelectorAll("table.sortable").forEach((table) => {
  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(table, column));
  });
});

// Make a table that is wider than the page focusable, so that the arrow keys scroll it.
function reach() {
  document.querySelectorAll(".scroll").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
}

reach();
addEventListener("resize", reach);
document.querySelectorAll("details").forEach((box) => box.addEventListener("toggle", reach));

// Select the text where the page may not use the clipboard.
async function copy(figure, button) {
  const code = figure.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
}

document.querySelectorAll("figure.code").forEach((figure) => {
  const button = figure.querySelector("button");
  button.hidden = false;
  button.addEventListener("click", () => copy(figure, button));
});
