"""For Prometheus: which metrics there are, what to scrape, when to wake somebody."""
