// Runs before the first paint, so that the other theme is never visible.
(() => {
  const choice = (() => {
    try {
      return localStorage.getItem("olla-theme");
    } catch {
      return null;
    }
  })();
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
})();
