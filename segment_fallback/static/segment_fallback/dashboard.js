/* Keeps the dashboard up to date: fetches the part of it that changes, and changes what has changed.

   Elements stay the same ones, so that focus, scrolling, open details and ticked boxes stay, too. */
(function () {
  "use strict";
  const live = document.getElementById("sf-live");
  const state = document.getElementById("sf-state");
  const pause = document.getElementById("sf-pause");
  const every = Number(live.dataset.every) * 1000;
  let timer = 0;
  let asking = false;
  let paused = false;

  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE && (node.id || node.dataset.key)) || "";
  const alike = (one, other) => one.nodeName === other.nodeName && keyOf(one) === keyOf(other);

  function attributes(old, fresh) {
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of Array.from(old.attributes)) {
      const readers = old.nodeName === "DETAILS" && name === "open";
      if (!readers && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
  }

  function children(old, fresh) {
    const wanted = new Set(Array.from(fresh.childNodes, keyOf));
    for (const child of Array.from(old.childNodes)) {
      if (!wanted.has(keyOf(child))) child.remove();
    }
    const known = new Map(Array.from(old.children, (child) => [keyOf(child), child]));
    let at = old.firstChild;
    for (const child of Array.from(fresh.childNodes)) {
      const key = keyOf(child);
      const found = key ? known.get(key) : at;
      // An element that is moved loses the focus: what is in its way goes instead.
      while (key && found && at && at !== found && !keyOf(at)) {
        at = at.nextSibling;
        at.previousSibling.remove();
      }
      if (found && alike(found, child)) {
        if (found === at) at = at.nextSibling;
        else old.insertBefore(found, at);
        change(found, child);
      } else {
        old.insertBefore(document.importNode(child, true), at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function change(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    attributes(old, fresh);
    children(old, fresh);
  }

  async function refresh() {
    clearTimeout(timer);
    if (asking || paused || document.hidden) return;
    asking = true;
    try {
      const answer = await fetch(live.dataset.url, { headers: { Accept: "text/html" } });
      if (answer.redirected || answer.status === 403) {
        state.textContent = "You are signed out: reload the page.";
        pause.hidden = true;
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      if (!paused) {
        children(live, new DOMParser().parseFromString(text, "text/html").body);
        state.textContent = "Live";
        state.className = "sf-on";
      }
    } catch {
      state.textContent = "No answer from the site; trying again";
      state.className = "";
    } finally {
      asking = false;
    }
    timer = setTimeout(refresh, every);
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) {
      state.textContent = `Paused at ${new Date().toLocaleTimeString()}`;
      state.className = "";
    }
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  state.textContent = "Live";
  state.className = "sf-on";
  timer = setTimeout(refresh, every);
})();
