// Add new records to the list as they arrive. Without this script the list shows the records of its request.
"use strict";
const table = document.getElementById("records");
const body = table.tBodies[0];
const template = document.getElementById("record").content.querySelector("tr");
const status = document.getElementById("live");
const pause = document.getElementById("pause");
const MOST = 500;
let after = table.dataset.after;
let stream = null;
let added = 0;

function rowOf(line) {
  const row = template.cloneNode(true);
  if (line.tone) row.classList.add(line.tone);
  row.querySelector("a").href = `/records/${Number(line.seq)}`;
  for (const cell of row.cells) {
    // Text only: a record never becomes markup.
    (cell.querySelector("a") || cell).textContent = line.cells[cell.dataset.cell];
  }
  return row;
}

function show(event) {
  after = event.lastEventId || after;
  for (const line of JSON.parse(event.data)) {
    body.prepend(rowOf(line));
    added += 1;
  }
  while (body.rows.length > MOST) body.rows[body.rows.length - 1].remove();
  document.getElementById("empty")?.remove();
  status.textContent = `${added} new since the page was opened`;
}

function start() {
  if (stream) return;
  stream = new EventSource(`/events?${table.dataset.query}&after=${after}`);
  stream.onmessage = show;
  stream.onopen = () => { status.textContent = added ? `${added} new since the page was opened` : "waiting for records"; };
  stream.onerror = () => { status.textContent = "no connection to egress ui"; };
  pause.textContent = "Pause";
}

function stop() {
  stream?.close();
  stream = null;
  pause.textContent = "Continue";
}

let paused = false;
pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  if (paused) stop(); else start();
  if (paused) status.textContent = "paused";
});
// A browser opens few connections to one server, so a hidden tab must not keep one.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stop(); else if (!paused) start();
});
start();
