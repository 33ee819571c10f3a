"""The command line: what the scripts under src/ and tsf-impute run, a module for each kind."""
