// What the page shows, as its address says it: #stage=decode&kernel=…&view=…. Whoever opens a copied address sees the same.
const links = (() => {
  // stage: the filter of the whole page; kernel, module: highlighted; op: the selected operation; view: the timeline's
  // window in nanoseconds; table, sort, search: of the table touched last.
  const KEYS = ["stage", "kernel", "module", "op", "view", "table", "sort", "search"];
  const state = Object.fromEntries(KEYS.map((key) => [key, null]));
  const listeners = [];

  // A fragment without "=" is the name of a section, and changes nothing.
  const read = () => {
    const text = location.hash.slice(1);
    if (text && !text.includes("=")) return false;
    const given = new URLSearchParams(text);
    for (const key of KEYS) state[key] = given.get(key);
    return true;
  };
  const written = () => {
    const given = new URLSearchParams();
    for (const key of KEYS) if (state[key] !== null) given.set(key, state[key]);
    const text = given.toString();
    return text ? `#${text}` : location.href.split("#")[0];
  };
  const tell = (changed, moved) => { for (const act of listeners) act(changed, moved); };

  // Change some of it. A step of the user's becomes one of the browser's history; moving about ("replace") does not.
  const set = (patch, how = "push") => {
    const changed = Object.keys(patch).filter((key) => state[key] !== patch[key]);
    if (!changed.length) return;
    Object.assign(state, patch);
    if (how === "push") history.pushState(null, "", written());
    else history.replaceState(null, "", written());
    tell(new Set(changed), false);
  };
  // Hear of changes: of which keys, and whether the address brought them ("moved").
  const on = (act) => listeners.push(act);
  const follow = () => {
    const before = { ...state };
    if (read()) tell(new Set(KEYS.filter((key) => state[key] !== before[key])), true);
  };
  addEventListener("popstate", follow);
  addEventListener("hashchange", follow);
  const start = () => { if (read()) tell(new Set(KEYS.filter((key) => state[key] !== null)), true); };

  const stage = () => state.stage ?? "all";
  // Whether something of a stage is shown.
  const shows = (name) => stage() === "all" || stage() === name;

  return { state, set, on, start, stage, shows };
})();
