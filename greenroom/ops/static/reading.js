"use strict";

// Finding one's way on the page: links to its sections, all of it as text, tables that scroll sideways by keyboard.
(() => {
  const sections = [...document.querySelectorAll("main section > h2[id]")];
  const nav = document.getElementById("sections");

  for (const heading of sections) {
    const link = document.createElement("a");
    link.href = `#${heading.id}`;
    link.textContent = heading.firstChild.textContent.trim();
    nav.append(link);
  }
  function showLinks() {
    sections.forEach((heading, at) => {
      const { hidden } = heading.parentElement;
      if (nav.children[at].hidden !== hidden) nav.children[at].hidden = hidden; // the observer below hears of this, too
    });
  }
  new MutationObserver(showLinks).observe(document.querySelector("main"), { subtree: true, attributeFilter: ["hidden"] });
  showLinks();

  // A browser lets a page write to the clipboard only on a secure address; elsewhere the old way does it.
  async function copy(words) {
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(words);
      return;
    }
    const area = document.createElement("textarea");
    area.value = words;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("the browser does not allow it");
  }

  async function everything() {
    const response = await fetch("/everything");
    if (!response.ok) throw new Error(`the ops process answers ${response.status}`);
    return response.text();
  }

  function copies(button, said, words) {
    document.getElementById(button).addEventListener("click", async () => {
      const status = document.getElementById(said);
      try {
        await copy(await words());
        status.textContent = "Copied.";
      } catch (error) {
        status.textContent = `Not copied: ${error.message}.`;
      }
    });
  }
  copies("copy", "copy-said", everything);
  copies("copy-request", "copy-request-said", () =>
    ["request-title", "request-facts", "request-stacks"].map((id) => document.getElementById(id).innerText).join("\n\n"));

  // What scrolls sideways has to take the focus, or a keyboard does not reach its end; what fits needs no stop.
  const watcher = new ResizeObserver((entries) => {
    for (const { target } of entries) reach(target.closest(".wide"));
  });
  function reach(box) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      if (!box.hasAttribute("aria-labelledby")) box.setAttribute("aria-label", box.querySelector("caption").textContent);
    } else if (document.activeElement !== box) {
      box.removeAttribute("tabindex");
    }
  }
  for (const box of document.querySelectorAll(".wide")) {
    watcher.observe(box);
    watcher.observe(box.firstElementChild);
  }
})();
