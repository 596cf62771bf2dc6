// Starts the vendored Swagger UI on our own description: its remote validator and its bar for other addresses stay off.

const { SwaggerUIBundle, SwaggerUIStandalonePreset } = window;

SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  plugins: [() => ({ components: { Topbar: () => null } })],
  layout: "StandaloneLayout",
});
