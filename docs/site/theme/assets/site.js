// What readers who see or point differently need, and what theme and Swagger UI leave out.
const name = (what) => (element, place) => element.setAttribute("aria-label", what + (place ? ` ${place + 1}` : ""));
const reachable = (element) => (element.tabIndex = 0);
const AMENDS = {
  // Who uses a keyboard can scroll what is too wide.
  "pre > code, .md-typeset__scrollwrap, .md-typeset__table, .responses-inner, .microlight": reachable,
  ".md-code__nav": name("Code"),
  "#servers": name("Server"),
  "input[data-variable]": name("Variable of the server"),
  "textarea.body-param__text": name("Request body"),
  ".examples-select-element": name("Example"),
  "table[role=region]": name("Responses"),
  ".servers h4": (element) => element.setAttribute("aria-level", "2"),
};
const amend = () => {
  for (const [selector, change] of Object.entries(AMENDS)) {
    document.querySelectorAll(selector).forEach(change);
  }
};
new MutationObserver(amend).observe(document.body, { childList: true, subtree: true });
amend();
