// What all scripts of the page share: its data, its elements, its colours, and what must be drawn anew when these change.
const page = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);

  // Names are the profiled program's own words: they only ever become text nodes.
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined && text !== null) made.textContent = text;
    return made;
  };

  // --- colours -------------------------------------------------------------------------------------------------
  const probe = document.body.appendChild(element("span"));
  probe.hidden = true;
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const stageColour = (stage) => colour(["prefill", "decode", "mixed"].includes(stage) ? stage : "neither");

  // A row of buttons of which one is pressed.
  const segmented = (holder, names, chosen, choose) => {
    for (const name of names) {
      const button = element("button", "", name);
      button.type = "button";
      button.setAttribute("aria-pressed", String(name === chosen));
      button.addEventListener("click", () => {
        for (const other of holder.children) other.setAttribute("aria-pressed", String(other === button));
        choose(name);
      });
      holder.append(button);
    }
  };

  // What happens to the page as a whole, and who does something about it: "draw" (anew, in other colours), "resize",
  // "print" and "printed".
  const listeners = { draw: [], resize: [], print: [], printed: [] };
  const on = (event, act) => listeners[event].push(act);
  const tell = (event) => { for (const act of listeners[event]) act(); };
  return { data, at, element, colour, stageColour, segmented, on, tell };
})();
