// diff.html: the choice of stages, and the way from a bar to its row.
(() => {
  const stages = [...document.querySelectorAll("article[data-stage]")].map((each) => each.dataset.stage);
  tables.offerStages(stages);
  // A row may be hidden by a search, or inside a closed fold.
  const goTo = (id) => {
    const row = page.at(id);
    if (row === null || row.tagName !== "TR") return;
    row.hidden = false;
    for (const other of document.querySelectorAll("tr.chosen")) other.classList.remove("chosen");
    row.classList.add("chosen");
    tables.reveal(row);
  };
  for (const link of document.querySelectorAll("svg a")) {
    link.addEventListener("click", () => { setTimeout(() => goTo(link.getAttribute("href").slice(1))); });
  }
  addEventListener("hashchange", () => goTo(location.hash.slice(1)));
  if (location.hash) goTo(location.hash.slice(1));
})();
