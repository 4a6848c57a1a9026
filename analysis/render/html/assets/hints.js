// What a number, a heading or a tile means: shown on hover and focus.
(() => {
  const { at } = page;
  const tip = at("tip");
  const explains = (target) => {
    const cell = target.closest("td");
    const own = target.closest("[data-def]");
    let text = own && !(cell && own.tagName === "TR") ? own.dataset.def : null;
    if (!text && cell && cell.closest("table")) {
      const row = cell.closest("tr");
      const heading = cell.closest("table").tHead.rows[0]?.cells[cell.cellIndex];
      text = row.dataset.def ?? heading?.dataset.def ?? null;
      if (cell.dataset.hint) text = `${cell.dataset.hint}${text ? `\n\n${text}` : ""}`;
    }
    return text;
  };
  const place = (target) => {
    const around = target.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, around.left), window.innerWidth - size.width - 8);
    const below = around.bottom + 8 + size.height < window.innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? around.bottom + 8 : Math.max(8, around.top - size.height - 8)}px`;
  };
  let waiting = 0;
  const hide = () => { clearTimeout(waiting); tip.hidden = true; };
  const show = (target, delay) => {
    clearTimeout(waiting);
    const text = target.closest ? explains(target) : null;
    if (!text) { hide(); return; }
    waiting = setTimeout(() => { tip.textContent = text; tip.hidden = false; place(target.closest("[data-def], td") ?? target); }, delay);
  };
  document.addEventListener("mouseover", (event) => show(event.target, event.target.closest(".def, th, .tile") ? 120 : 500));
  document.addEventListener("mouseout", hide);
  document.addEventListener("focusin", (event) => show(event.target, 0));
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  // Focus scrolls its element into view: what it says stays then, and goes along.
  document.addEventListener("scroll", () => {
    const focused = document.activeElement;
    if (!tip.hidden && focused && focused.matches("[data-def]")) place(focused);
    else if (!focused || !focused.matches("[data-def]")) hide();
  }, { passive: true });
})();
