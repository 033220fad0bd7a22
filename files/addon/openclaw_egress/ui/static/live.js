// Add new records to the list as they arrive. Without this script, the list stays as it was loaded.
"use strict";
const table = document.getElementById("records");
const body = table.tBodies[0];
const template = document.getElementById("record").content.querySelector("tr");
const leftOutTemplate = document.getElementById("left-out").content.querySelector("tr");
const older = document.getElementById("older");
const status = document.getElementById("live");
const pause = document.getElementById("pause");
const MOST = 500;
let after = table.dataset.after;
let stream = null;
let added = 0;
let leftOut = 0;

function before(seq) {
  return `/?${table.dataset.query}&before=${Number(seq)}`;
}

function rowOf(line) {
  const row = template.cloneNode(true);
  row.dataset.before = line.seq;
  if (line.tone) row.classList.add(line.tone);
  row.querySelector("a").href = `/records/${Number(line.seq)}`;
  for (const cell of row.cells) {
    // Set only text, so that a record can never add markup to the page.
    (cell.querySelector("a") || cell).textContent = line.cells[cell.dataset.cell];
  }
  return row;
}

// Return a placeholder row for the lines that the server skipped, with their number and a link to search them.
function rowOfLeftOut(news) {
  const row = leftOutTemplate.cloneNode(true);
  row.dataset.before = news.before;
  const link = row.querySelector("a");
  link.href = before(news.before);
  link.textContent = `${number(news.left_out)} lines before line ${number(news.before)} are not shown: search them`;
  return row;
}

function number(value) {
  return Number(value).toLocaleString("en");
}

// Remove the oldest rows above the maximum, and add a link to their records.
function cut() {
  if (body.rows.length <= MOST) return;
  while (body.rows.length > MOST) body.rows[body.rows.length - 1].remove();
  const link = older.querySelector("a");
  link.href = before(body.rows[body.rows.length - 1].dataset.before);
  link.textContent = "Older records";
  older.hidden = false;
}

function describe() {
  const texts = [];
  if (added) texts.push(`${number(added)} new since the page was opened`);
  if (leftOut) texts.push(`${number(leftOut)} lines not shown`);
  const text = texts.join("; ") || "waiting for records";
  // Change the text only if it differs: a screen reader announces each change, and many events contain no record.
  if (status.textContent !== text) status.textContent = text;
}

function show(event) {
  after = event.lastEventId || after;
  const news = JSON.parse(event.data);
  if (news.left_out) {
    body.prepend(rowOfLeftOut(news));
    leftOut += news.left_out;
  }
  for (const line of news.lines) {
    body.prepend(rowOf(line));
    added += 1;
  }
  cut();
  if (body.rows.length) document.getElementById("empty")?.remove();
  describe();
}

function start() {
  if (stream) return;
  stream = new EventSource(`/events?${table.dataset.query}&after=${after}`);
  stream.onmessage = show;
  stream.onopen = describe;
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
// A browser opens only a few connections to one server, so a hidden tab must close its own.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stop(); else if (!paused) start();
});
start();
