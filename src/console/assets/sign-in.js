// Uses the one-time link up whose code is in the address: after the `#`, which browsers send to no server.
const form = document.querySelector("form[data-link]");
const code = location.hash.slice(1);
if (form && code.startsWith("olink_")) {
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.code.value = code;
  form.requestSubmit();
}
