// The theme, the size of the window, and printing. Last of the scripts: it draws the page for the first time.
(() => {
  const { at, tell } = page;
  const themes = ["auto", "light", "dark"];
  let theme = "auto";
  const setTheme = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    tell("draw");
  };
  at("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    at("theme").textContent = `Theme: ${theme}`;
    setTheme(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (theme === "auto") tell("draw"); });
  let resizing = 0;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() => tell("resize"), 120); });
  addEventListener("beforeprint", () => {
    tell("print");
    setTheme("light");
    tell("resize");
  });
  addEventListener("afterprint", () => { tell("printed"); setTheme(theme); });
  tell("draw");
  links.start();
  document.documentElement.dataset.ready = "true";
})();
