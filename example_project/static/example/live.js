/* Keeps the live page up to date: asks once a second, and changes what changed. */
(function () {
  "use strict";
  const live = document.getElementById("live");
  const show = (name, shown) => (live.querySelector(`[data-show="${name}"]`).hidden = !shown);

  function badge(cell, way, label) {
    cell.className = `badge ${way}`;
    cell.textContent = label;
  }

  function fillEvent(row, event) {
    const time = row.querySelector("time");
    time.dateTime = event.received_at;
    time.textContent = new Date(event.received_at).toLocaleTimeString([], { hour12: false });
    badge(row.querySelector(".badge"), event.way, event.label);
    row.querySelectorAll(".again").forEach((note) => note.remove());
    for (const other of event.again) {
      const note = document.createElement("span");
      note.className = "again";
      note.textContent = `again by ${other.label}: dropped`;
      row.querySelector(".ways").append(" ", note);
    }
    row.querySelector(".type").textContent = event.type;
    row.querySelector(".name").textContent = event.name;
    row.querySelector(".path").textContent = event.path;
    for (const name of ["messageId", "anonymousId"]) {
      const cell = row.querySelector(`.${name}`);
      cell.title = event[name];
      cell.textContent = event[name].slice(-8);
    }
  }

  function fillOutcome(row, hit) {
    badge(row.querySelector(".badge"), hit.way, hit.label);
    row.querySelector(".outcome").textContent = hit.outcome;
    row.querySelector(".count").textContent = hit.count;
    row.querySelector(".meaning").textContent = hit.meaning;
  }

  // One row for each item, in the order of the items: the rows that are there already stay the same elements.
  function rows(name, items, keyOf, fill) {
    const body = live.querySelector(`[data-rows="${name}"]`);
    const known = new Map(Array.from(body.rows, (row) => [row.dataset.key, row]));
    const wanted = items.map((item) => {
      let row = known.get(keyOf(item));
      if (!row) {
        row = document.getElementById(name).content.firstElementChild.cloneNode(true);
        row.dataset.key = keyOf(item);
        row.classList.add("new");
      }
      fill(row, item);
      return row;
    });
    wanted.forEach((row, index) => {
      if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] || null);
    });
    while (body.rows.length > wanted.length) body.lastElementChild.remove();
    show(name, items.length > 0);
    show(`no-${name}`, items.length === 0);
  }

  function count(name, number) {
    const cell = live.querySelector(`[data-count="${name}"]`);
    if (cell.textContent !== String(number)) cell.textContent = number;
  }

  function update(data) {
    show("trouble", !data.segment);
    count("total", data.total);
    count("waiting", data.waiting);
    data.by_way.forEach((entry) => count(entry.way, entry.count));
    if (data.segment) rows("events", data.events, (event) => event.messageId, fillEvent);
    rows("outcomes", data.outcomes, (hit) => `${hit.way} ${hit.outcome}`, fillOutcome);
  }

  async function poll() {
    if (!document.hidden) {
      try {
        update(await (await fetch(live.dataset.url)).json());
        show("gone", false);
      } catch {
        show("gone", true);
      }
    }
    setTimeout(poll, 1000);
  }
  poll();
})();
