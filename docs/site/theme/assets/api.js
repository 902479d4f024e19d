// The API reference. Requests go to the servers of assets/mock-openapi.json: a mock on the reader's machine.
const ui = SwaggerUIBundle({
  url: "assets/mock-openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: false, // would put links into buttons
  docExpansion: "full",
  defaultModelsExpandDepth: 1,
  displayRequestDuration: true,
  validatorUrl: null, // would send the document to another host
  // The mock's key is public, and the live API never sees it.
  onComplete: () => ui.preauthorizeApiKey("apiKey", "techforge-mock-key"),
});
// Its colors follow those of the site.
const recolor = () =>
  document.documentElement.classList.toggle("dark-mode", document.body.dataset.mdColorScheme === "slate");
new MutationObserver(recolor).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
recolor();
