const hidden = () => [...document.querySelectorAll(".hidden-text")];
function show(button, shown) {
  button.setAttribute("aria-expanded", shown);
  button.querySelector(".text").setAttribute("aria-hidden", !shown);
}
function toggle(button) {
  const shown = button.getAttribute("aria-expanded") !== "true";
  if (!shown && getSelection().toString()) return;  // selecting the text is no wish to hide it
  show(button, shown);
}
hidden().forEach(button => button.addEventListener("click", () => toggle(button)));
document.querySelectorAll(".all-texts").forEach(all => all.addEventListener("click", () => {
  const shown = all.getAttribute("aria-pressed") !== "true";
  all.setAttribute("aria-pressed", shown);
  hidden().forEach(button => show(button, shown));
}));
