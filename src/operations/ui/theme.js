// Runs before the first paint, so that a chosen theme never flashes the other one.
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
