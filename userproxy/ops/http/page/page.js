// Reads the page anew in place: what is selected, folded out or scrolled to stays. Without this script the browser reloads it.
"use strict";

const seconds = Number(document.body.dataset.seconds);

async function refresh() {
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (document.getSelection().isCollapsed) {
      document.querySelector("main").replaceWith(page.querySelector("main"));
      document.querySelector("#seen").replaceWith(page.querySelector("#seen"));
    }
    document.body.classList.remove("lost");
  } catch {
    document.body.classList.add("lost");
  }
  setTimeout(refresh, seconds * 1000);
}

setTimeout(refresh, seconds * 1000);
