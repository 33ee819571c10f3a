"""The report: one folder with a page that shows what an experiment gave."""
