// Whoever uses a keyboard can scroll what is too wide.
for (const wide of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset__table, pre > code")) {
  wide.tabIndex = 0;
}
