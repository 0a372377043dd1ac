"use strict";
// Refreshes the page in place. Unchanged nodes are kept, so that focus, scroll position and open
// details survive.
(() => {
  const period = Number(document.documentElement.dataset.refresh) * 1000;
  const button = document.getElementById("pause");
  const stale = document.getElementById("stale");
  let paused = false;

  // Changes `old` to equal `fresh`, node by node.
  const morph = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(document.importNode(fresh, true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) {
      // The user decides whether details are open.
      if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const before = [...old.childNodes];
    const after = [...fresh.childNodes];
    after.forEach((child, index) => {
      if (index < before.length) morph(before[index], child);
      else old.append(document.importNode(child, true));
    });
    before.slice(after.length).forEach((child) => child.remove());
  };

  const refresh = async () => {
    if (paused || document.hidden) return;
    try {
      const answer = await fetch(location.pathname, { cache: "no-cache", credentials: "same-origin" });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of ["summary", "content"]) {
        const part = fresh.getElementById(id);
        if (part) morph(document.getElementById(id), part);
      }
      document.title = fresh.title;
      stale.hidden = true;
    } catch {
      stale.hidden = false;
    }
    document.documentElement.dataset.refreshed = String(Date.now());
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, period);
})();
