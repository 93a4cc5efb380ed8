"""One module a dataflow: wiring you can read on one screen. The only place where connectors and cores meet."""
