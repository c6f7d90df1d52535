// The rows of a board's form, without going to the server for each change. Every button works without this file too.
"use strict";

const form = document.querySelector(".editor");
const list = form.querySelector("[data-rows]");
const said = form.querySelector("[data-said]");
const emptyRow = document.getElementById("empty-row");
const title = form.elements.title;
const slug = form.elements.slug;
const shownSlug = form.querySelector("[data-slug]");

form.addEventListener("click", (event) => {
  const button = event.target.closest("[data-verb]");
  if (!button) {
    return;
  }
  event.preventDefault();
  const row = button.closest("li");
  ({add, remove, up, down})[button.dataset.verb](row, button);
  number();
});

function add() {
  list.append(emptyRow.content.cloneNode(true));
  list.lastElementChild.querySelector("input").focus();
  said.textContent = "A row was added.";
}

function remove(row) {
  const next = row.nextElementSibling || row.previousElementSibling;
  row.remove();
  (next ? next.querySelector("input") : form.querySelector("[data-verb=add]")).focus();
  said.textContent = "The row was removed.";
}

function up(row, button) {
  if (row.previousElementSibling) {
    row.previousElementSibling.before(row);
    button.focus();
    said.textContent = "Moved up.";
  }
}

function down(row, button) {
  if (row.nextElementSibling) {
    row.nextElementSibling.after(row);
    button.focus();
    said.textContent = "Moved down.";
  }
}

// Ids, labels and button values carry the number of their row.
function number() {
  [...list.children].forEach((row, index) => {
    for (const element of row.querySelectorAll("[id], [for], [aria-describedby], [data-verb]")) {
      for (const name of ["id", "for", "aria-describedby", "value"]) {
        if (element.matches("input") && name === "value") {
          continue;
        }
        const value = element.getAttribute(name);
        if (value) {
          element.setAttribute(name, value.replace(/-\d+/, `-${index}`));
        }
      }
    }
  });
}

// A new board's name in addresses follows its title until somebody writes one.
let follows = slug.value === "";
slug.addEventListener("input", () => {
  follows = slug.value === "";
  shownSlug.textContent = slug.value || "…";
});
title.addEventListener("input", () => {
  if (follows) {
    slug.value = title.value.normalize("NFKD").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 64).replace(/-+$/, "");
    shownSlug.textContent = slug.value || "…";
  }
});
