"""The REST service: `app.create_app` makes it, `openapi.json` is its committed description."""
